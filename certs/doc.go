// Package certs gives the webhook its serving certificate, and the API server the CA bundle that verifies it.
//
// A webhook certificate is easy to create and hard to renew. Each API server reads the CA bundle, and each replica the Secret, at its own
// time, so a certificate that is replaced in one step makes calls fail until all have caught up. This package renews without a failed call:
//
//   - A replica serves a new certificate only after the API server has trusted it for a while (serve.go).
//   - A new authority is trusted beside the former ones for a day (renew.go, lifetime.go).
//   - Time is the API server's (clock.go), so replicas with wrong clocks agree.
//   - The path that the API server calls is a secret derived from the certificate's key, and changes with it as carefully (path.go).
//
// The certificate is in a Secret, which either the operator maintains (SourceOwn) or another program such as cert-manager (SourceSecret,
// with the objects of config/certmanager). keeper.go brings Secret, webhook configuration and server together; authority.go issues and
// parses certificates; the decisions do no I/O.
//
// github.com/open-policy-agent/cert-controller, the usual library, replaces authority and certificate at once, does not recreate a deleted
// Secret, and caches every Secret of the namespace.
package certs
