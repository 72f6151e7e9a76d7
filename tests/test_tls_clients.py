"""The TLS of mail programs that cannot be run here, through their libraries: Thunderbird's (NSS) and that of Java."""
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import harness
from harness import PASSWORD, TIMEOUT
from test_tls import MESSAGE, NAME, Authority, authority, pairs, serve, shared  # noqa: F401

SESSION = "USER ann\r\nPASS %s\r\nRETR 1\r\nQUIT\r\n" % PASSWORD


def needs(*programs):
    lacking = [x for x in programs if shutil.which(x) is None]
    return pytest.mark.skipif(bool(lacking), reason="NOT RUN: no %s" % ", ".join(lacking))


# NSS, which Thunderbird has for TLS

@pytest.fixture(scope="module")
def trust(authority, tmp_path_factory):  # noqa: F811
    """A database of NSS's with our root in it, and one without."""
    made = []
    for name in ("with", "without"):
        directory = "sql:%s" % tmp_path_factory.mktemp(name)
        subprocess.run(["certutil", "-N", "-d", directory, "--empty-password"], check=True, capture_output=True)
        made.append(directory)
    subprocess.run(["certutil", "-A", "-d", made[0], "-n", "root", "-t", "C,,", "-i", authority.root], check=True, capture_output=True)
    return made


def tstclnt(p, trust, *options, name=NAME):
    """A session; (status, what the server said, what was agreed upon)."""
    with tempfile.TemporaryFile() as commands:      # a file, because at the end of a pipe tstclnt runs in a circle
        commands.write(SESSION.encode())
        commands.seek(0)
        done = subprocess.run(["tstclnt", "-4", "-h", "127.0.0.1", "-p", str(p.tls_port), "-a", name, "-d", trust, "-v", *options], stdin=commands,
                              capture_output=True, timeout=TIMEOUT)
    return done.returncode, done.stdout, done.stderr


@needs("tstclnt", "certutil")
@pytest.mark.parametrize("version", ["tls1.2", "tls1.3"])
@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_nss(make_postern, pairs, trust, version, kind):  # noqa: F811
    p = serve(make_postern, pairs[kind])
    p.user("ann", "mbox", [MESSAGE])
    status, heard, said = tstclnt(p, trust[0], "-V", "%s:%s" % (version, version))
    assert status == 0, said.decode()
    assert heard.count(b"+OK") == 5 and harness.wire(MESSAGE) in heard
    assert {"tls1.2": b"SSL version 3.3 ", "tls1.3": b"SSL version 3.4 "}[version] in said, said


@needs("tstclnt", "certutil")
def test_nss_refuses_whom_it_does_not_know(shared, trust):  # noqa: F811
    """So that what the test above says of names and chains is worth something."""
    for database, name in ((trust[1], NAME), (trust[0], "other.example.net")):
        status, heard, said = tstclnt(shared, database, name=name)
        assert status != 0 and heard == b"", said


# Java

FETCH = """
import java.io.*;
import java.net.*;
import java.security.*;
import java.security.cert.*;
import javax.net.ssl.*;

class Fetch {
	static BufferedReader in;
	static OutputStream out;

	static String reply(String command) throws IOException {
		if (command != null) {
			out.write((command + "\\r\\n").getBytes("US-ASCII"));
			out.flush();
		}
		String line = in.readLine();
		if (line == null || !line.startsWith("+OK"))
			throw new IOException(command + ": " + line);
		return line;
	}

	static void use(Socket s) throws IOException {
		in = new BufferedReader(new InputStreamReader(s.getInputStream(), "ISO-8859-1"));
		out = s.getOutputStream();
	}

	/* ROOT NAME PORT TLSPORT PASSWORD VERSION...: a session in each version, implicit and by STLS */
	public static void main(String[] a) throws Exception {
		KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
		roots.load(null, null);
		roots.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(new FileInputStream(a[0])));
		TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
		trust.init(roots);
		SSLContext context = SSLContext.getInstance("TLS");
		context.init(null, trust.getTrustManagers(), null);
		for (int i = 5; i < a.length; i++)
			for (int port : new int[] { Integer.parseInt(a[3]), Integer.parseInt(a[2]) }) {
				boolean stls = port == Integer.parseInt(a[2]);
				Socket plain = new Socket("127.0.0.1", port);
				if (stls) {
					use(plain);
					reply(null);
					reply("STLS");
				}
				SSLSocket s = (SSLSocket)context.getSocketFactory().createSocket(plain, a[1], port, true);
				SSLParameters p = s.getSSLParameters();
				p.setEndpointIdentificationAlgorithm("HTTPS");
				p.setProtocols(new String[] { a[i] });
				p.setApplicationProtocols(new String[] { "pop3" });
				s.setSSLParameters(p);
				s.startHandshake();
				use(s);
				if (!stls)
					reply(null);
				reply("USER ann");
				reply("PASS " + a[4]);
				reply("RETR 1");
				String line, message = "";
				while (!(line = in.readLine()).equals("."))
					message += line + "|";
				reply("QUIT");
				if (in.readLine() != null)
					throw new IOException("more after QUIT");
				System.out.println(s.getSession().getProtocol() + " " + s.getApplicationProtocol() + " " + message);
				s.close();
			}
	}
}
"""


@needs("java", "javac")
@pytest.mark.parametrize("kind", ["p256", "rsa", "ed25519"])
def test_java(make_postern, authority, pairs, kind):  # noqa: F811
    p = serve(make_postern, pairs[kind])
    p.user("ann", "mbox", [MESSAGE])
    with tempfile.TemporaryDirectory() as d:
        source = pathlib.Path(d, "Fetch.java")
        source.write_text(FETCH)
        done = subprocess.run(["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", source, authority.root, NAME, str(p.port), str(p.tls_port), PASSWORD,
                               "TLSv1.2", "TLSv1.3"], capture_output=True, text=True, timeout=4 * TIMEOUT)
    assert done.returncode == 0, done.stderr
    message = "|".join(MESSAGE.decode().split("\n"))
    assert done.stdout.splitlines() == ["%s pop3 %s" % (v, message) for v in ("TLSv1.2", "TLSv1.2", "TLSv1.3", "TLSv1.3")]
