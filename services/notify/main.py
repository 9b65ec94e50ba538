"""`python -m services.notify.main`: the service's parts, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.kit import config, migrate, process, rpc, telemetry
from services.kit.clock import WallClock
from services.kit.database import create_engine
from services.kit.stream import Stream
from services.notify import consumer, grpc_server, grpc_sign_in
from services.notify.billing import BillingLink
from services.notify.email import MailWriter
from services.notify.sender import SLOTS, Sender
from services.notify.settings import NotifySettings
from services.notify.smtp import Server, SmtpMailer
from services.notify.storage import PostgresMailbag
from tollway.notify.v1 import notify_pb2_grpc, sign_in_pb2_grpc

MIGRATIONS = Path(__file__).parent / "migrations"


def main() -> None:
    settings = config.load(NotifySettings)
    telemetry.configure_logs("notify", settings.log_level)

    @asynccontextmanager
    async def service(tasks: process.Tasks) -> AsyncIterator[None]:
        engine = create_engine(
            settings.notify_dsn.get_secret_value(), pool_size=SLOTS + 4, application_name="tollway-notify"
        )
        stream = Stream(settings.nats_url, name="tollway-notify")
        bag = PostgresMailbag(engine)
        mailer = SmtpMailer(Server.of(settings.smtp_url.get_secret_value()))
        sender = Sender(bag, MailWriter(settings.sender, settings.mail_locale), mailer)
        link = rpc.Link(settings.billing_addr, settings, timeout_s=5.0)
        directory = BillingLink(link)
        server = rpc.Server(settings, settings.notify_port)
        server.add(
            notify_pb2_grpc.add_NotifyServiceServicer_to_server,
            grpc_server.NotifyServicer(bag, directory, sender.wake),
            grpc_server.FULL_NAME,
        )
        server.add(
            sign_in_pb2_grpc.add_SignInMailServiceServicer_to_server,
            grpc_sign_in.SignInMailServicer(mailer, settings.sender, WallClock()),
            grpc_sign_in.FULL_NAME,
        )
        stop_metrics = telemetry.serve_metrics(settings.host, settings.notify_metrics_port)
        try:
            await migrate.upgrade(engine, MIGRATIONS)
            stream.start()
            tasks.start(sender.run(), "sender")
            mail_domain = settings.sender.rsplit("@", 1)[1]
            events = consumer.build(stream, engine, directory, mail_domain=mail_domain, wake=sender.wake)
            tasks.start(events.run(), "consumer")
            await server.start()
            try:
                yield
            finally:
                await server.stop()
        finally:
            await tasks.stop()
            await stream.close()
            await link.close()
            await mailer.close()
            stop_metrics()
            await engine.dispose()

    process.run(service)


if __name__ == "__main__":
    main()
