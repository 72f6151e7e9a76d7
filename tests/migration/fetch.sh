#!/bin/sh
# The other servers, unpacked from Debian's packages into a folder: they cannot be installed beside each other, and nothing of the host is changed.
set -eu
into=$1
mkdir -p "$into/packages" "$into/root"
cd "$into/packages"
for package in popa3d courier-pop mailutils-pop3d libmailutils9 libkyotocabinet16v5 libmu-dbm9 libmariadb3 \
	cyrus-common cyrus-imapd cyrus-pop3d sasl2-bin libsasl2-2 libsasl2-modules libsasl2-modules-db libical3 libxapian30 libzephyr4 \
	libjansson4 libpcre3 libpq5 libwrap0 libldap-2.5-0; do
	ls "$package"_*.deb >/dev/null 2>&1 || apt-get -q download "$package"
	dpkg -x "$package"_*.deb ../root
done
