# The package in a machine of its own: `make check-systemd` installs it in a container that systemd boots, uses, reboots, upgrades, removes and purges it;
# `make check-supervisors` starts the suite there by inetd, xinetd, tcpserver, s6, runit and OpenRC; `make check-install`
# does what INSTALL says, with a stopwatch. They want root, debootstrap, systemd-container,
# and for the package debhelper, dh-apparmor and lintian; they fetch from the sources that apt has on this host, the first time about 300 MB. None
# is part of `make check`: some minutes each.

check-systemd: all
	$(PYTHON) tests/systemd/check_package.py $(B)/systemd

check-supervisors: all
	$(PYTHON) tests/systemd/check_supervisors.py $(B)/systemd

check-install:
	$(PYTHON) tests/systemd/check_install.py $(B)/systemd

.PHONY: check-systemd check-supervisors check-install
