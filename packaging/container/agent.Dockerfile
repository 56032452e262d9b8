# The agent, from its Debian package. From the repository's root:
#   make packages
#   docker build -f packaging/container/agent.Dockerfile -t usance-agent .
#
# The package on the machine itself is the better way: there, jobs outlive a restart of the agent with their supervisors,
# and the agent sees what a job's container can open. docs/containers.md says what is lost here.
ARG BASE=debian:12-slim

FROM ${BASE} AS unpacked
COPY dist/usance-agent_*.deb /packages/
RUN set -- /packages/*.deb && test $# = 1 && dpkg-deb --extract "$1" /unpacked

FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.11 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
    && useradd --system --uid 7411 --user-group --home-dir /var/lib/usance --shell /usr/sbin/nologin usance-agent \
    && install -d -m 700 -o 7411 -g 7411 /var/lib/usance
COPY --from=unpacked /unpacked/usr/lib/usance-agent /usr/lib/usance-agent
COPY --from=unpacked /unpacked/usr/bin/usance-agent /usr/bin/usance-agent
COPY --from=unpacked /unpacked/etc/usance /etc/usance
USER 7411:7411
ENV LANG=C.UTF-8 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=utility
VOLUME /var/lib/usance
STOPSIGNAL SIGTERM
# It says 3 where the machine is no host yet, and 0 where it is; the link is told in words.
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s CMD ["usance-agent", "status", "--json"]
ENTRYPOINT ["usance-agent"]
CMD ["run"]
