"""A mail server that writes down what it takes, one line of JSON a message: smtp.py PLACE plain|starttls|tls"""
import asyncio
import email
import json
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

place, mode = pathlib.Path(sys.argv[1]), sys.argv[2]


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 no such user here"
        if address.startswith("later@"):
            return "451 4.3.0 come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content)
        taken = {name.lower(): value for name, value in message.items()}
        taken["body"] = message.get_payload(decode=True).decode().strip()
        taken["for"], taken["tls"] = envelope.rcpt_tos, session.ssl is not None or mode == "tls"
        with open(place / "taken.jsonl", "a") as file:
            file.write(json.dumps(taken) + "\n")
        if (place / "lose").exists():
            (place / "lose").unlink()
            server.transport.abort()
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (b"bot", b"s3cret-word")
    return AuthResult(success=known, handled=True) if known else AuthResult(success=False, handled=False)


async def main():
    context = None
    if mode != "plain":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(place / "server.pem", place / "server.key")
    kept = {"authenticator": authenticate, "auth_required": mode != "plain", "auth_require_tls": mode == "starttls"}
    if mode == "starttls":
        kept.update(tls_context=context, require_starttls=True)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), hostname="mail", **kept), "127.0.0.1", 0, ssl=context if mode == "tls" else None
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
