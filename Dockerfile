# The image: one static binary, certificates, nothing else. No shell, no package manager, no root.
#
#   docker build -t kinesis-pulsar --build-arg VERSION=v0.1.0 --build-arg COMMIT=$(git rev-parse HEAD) .
#   docker run --rm -v ./kinesis-pulsar.yaml:/kinesis-pulsar.yaml:ro -p 4195:4195 kinesis-pulsar
#
# The same source, version and base image give the same binary: paths are trimmed, nothing of the machine gets in.
ARG GO_IMAGE=golang:1.26-bookworm
FROM ${GO_IMAGE} AS build
WORKDIR /src
# Settings of the module proxy, for builds without the public one.
ARG GOPROXY=
ARG GOSUMDB=
ARG GOFLAGS=
ENV CGO_ENABLED=0
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
ARG COMMIT=
RUN go build -trimpath -buildvcs=false -tags timetzdata -ldflags "-s -w -X main.Version=${VERSION} -X main.Commit=${COMMIT}" -o /out/kinesis-pulsar .
RUN go build -trimpath -buildvcs=false -ldflags "-s -w" -o /out/kinesis-emulator ./tests/kinesistest/server

# A Kinesis to try things with, without AWS; see compose.yaml.
FROM scratch AS emulator
COPY --from=build /out/kinesis-emulator /kinesis-emulator
USER 10001:10001
EXPOSE 4567
ENTRYPOINT ["/kinesis-emulator"]
CMD ["-address", "0.0.0.0:4567", "-streams", "orders:4"]

FROM scratch
LABEL org.opencontainers.image.title="kinesis-pulsar" \
      org.opencontainers.image.description="Moves Amazon Kinesis streams into Apache Pulsar" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/kinesis-pulsar /kinesis-pulsar
# Nothing is ever written to the file system: the root may be read-only.
USER 10001:10001
EXPOSE 4195
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/kinesis-pulsar", "ready"]
ENTRYPOINT ["/kinesis-pulsar"]
CMD ["run", "/kinesis-pulsar.yaml"]
