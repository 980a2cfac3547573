"""Certificates for peers, by the openssl command."""

import subprocess

from .processes import tool


class Certificates:
    """An authority and one certificate for every member of a cluster on loopback, or on the address that is given. `renew`
    writes it anew, in place."""

    def __init__(self, lab, days, name="tls", address="127.0.0.1"):
        self._address = address
        self._program = tool("openssl")
        self._directory = lab.path(name)
        self._directory.mkdir()
        self._openssl("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650", "-subj", "/CN=lab CA")
        self.renew(days)

    @property
    def authority(self):
        return self._directory / "ca.crt"

    @property
    def certificate(self):
        return self._directory / "member.crt"

    @property
    def key(self):
        return self._directory / "member.key"

    def flags(self):
        """What `rafthttp node` is told."""
        return ["--peer-cert-file", self.certificate, "--peer-key-file", self.key, "--peer-trusted-ca-file", self.authority]

    def renew(self, days):
        """A certificate that is valid from now for so many days, put in the place of the one before."""
        (self._directory / "extensions").write_text(
            f"subjectAltName=IP:{self._address},DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
        self._openssl("req", *_KEY, "-keyout", "new.key", "-out", "new.csr", "-subj", "/CN=member")
        self._openssl("x509", "-req", "-in", "new.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                      "-days", str(days), "-extfile", "extensions", "-out", "new.crt")
        for suffix in ("key", "crt"):
            (self._directory / f"new.{suffix}").replace(self._directory / f"member.{suffix}")

    def _openssl(self, *arguments):
        done = subprocess.run([self._program, *arguments], cwd=self._directory, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
