# The coordinator, from its Debian package: what is tested is what is shipped. From the repository's root:
#   make packages
#   docker build -f packaging/container/coordinator.Dockerfile -t usance-coordinator .
ARG BASE=debian:12-slim

FROM ${BASE} AS unpacked
COPY dist/usance-coordinator_*.deb /packages/
# One version: with several in dist/, the pattern would unpack whichever comes last.
RUN set -- /packages/*.deb && test $# = 1 && dpkg-deb --extract "$1" /unpacked

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.11 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
    && useradd --system --uid 7410 --user-group --home-dir /var/lib/usance-coordinator --shell /usr/sbin/nologin usance-coordinator \
    && install -d -m 700 -o 7410 -g 7410 /var/lib/usance-coordinator
COPY --from=unpacked /unpacked/usr/lib/usance-coordinator /usr/lib/usance-coordinator
COPY --from=unpacked /unpacked/usr/bin/usance-coordinator /usr/bin/usance-coordinator
USER 7410:7410
ENV LANG=C.UTF-8 \
    USANCE_COORDINATOR_MARKET=0.0.0.0:7410 \
    USANCE_COORDINATOR_HOSTS=0.0.0.0:7411
# The root may be read-only: nothing but this is written to.
VOLUME /var/lib/usance-coordinator
EXPOSE 7410 7411
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["usance-coordinator", "health"]
ENTRYPOINT ["usance-coordinator"]
CMD ["run"]
