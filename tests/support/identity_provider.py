"""An operator's identity provider: a real server on loopback, over HTTPS, with keys that it can change."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.support.certificates import make_certificates

AUDIENCE = "usance-market"


class IdentityProvider:
    """`serve` it; what it is asked for stands in `asked`."""

    def __init__(self, folder: Path) -> None:
        self.keys: dict[str, Any] = {}
        self.asked: list[str] = []
        # Path -> what is answered instead.
        self.instead: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        certificates = make_certificates("localhost")
        self.ca = folder / "provider.pem"
        self.ca.write_bytes(certificates.authority_pem)
        pair = folder / "provider-pair.pem"
        pair.write_bytes(certificates.certificate_pem + certificates.key_pem)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trust.load_cert_chain(pair)
        self._server.socket = trust.wrap_socket(self._server.socket, server_side=True)
        self.issuer = f"https://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.rotate("first")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def rotate(self, *names: str) -> None:
        """From now on these keys, and no others."""
        self.keys = {name: self.keys.get(name) or _fresh_key(name) for name in names}

    def token(self, key_name: str = "first", algorithm: str = "", **claims: Any) -> str:
        key = self.keys[key_name]
        return sign(key, algorithm or algorithm_of(key), key_name, **claims)

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [_jwk(name, key) for name, key in self.keys.items()]}

    def _answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if path in self.instead:
            return self.instead[path]
        if path == "/.well-known/openid-configuration":
            document = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
            return 200, json.dumps(document).encode(), {}
        if path == "/keys":
            return 200, json.dumps(self.jwks).encode(), {}
        return 404, b"", {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                status, body, headers = provider._answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server names it so
                pass

        return Handler


def sign(key: Any, algorithm: str, key_name: str | None, **claims: Any) -> str:
    headers = {} if key_name is None else {"kid": key_name}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def algorithm_of(key: Any) -> str:
    return "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"


def public_pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def _fresh_key(name: str) -> Any:
    if name.startswith("rsa"):
        return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return ec.generate_private_key(ec.SECP256R1())


def _jwk(name: str, key: Any) -> dict[str, Any]:
    kind: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"}
