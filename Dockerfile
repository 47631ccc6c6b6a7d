# The two images, built with Docker. hack/image builds the same images without Docker.
#   docker build --target operator -t taskflow/operator .
#   docker build --target agent -t taskflow/agent .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETARCH
ENV CGO_ENABLED=0 GOOS=linux GOARCH=$TARGETARCH
RUN for program in operator agent; do \
      go build -trimpath -buildvcs=false -ldflags "-s -w -buildid=" -o /out/$program ./cmd/$program; \
    done

FROM scratch AS operator
COPY --from=build --chmod=0555 /out/operator /operator
USER 65532:65532
ENTRYPOINT ["/operator"]

FROM scratch AS agent
COPY --from=build --chmod=0555 /out/agent /agent
USER 65532:65532
ENTRYPOINT ["/agent"]
