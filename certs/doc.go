// Package certs gives the webhook its serving certificate, and the API server the authority to trust it by.
//
// Both are in a Secret. The operator keeps it itself (SourceOwn), or cert-manager does (SourceSecret; the folder
// config/certmanager has the objects that ask for it). Whoever keeps it: a replica serves a new certificate only when the API
// server has trusted it for a while, so that no call fails while certificates change.
//
// The path that the API server calls the webhook by is a secret, which is derived from the certificate's key, and it changes with it: path.go.
//
// Six parts: authority.go makes certificates and reads them, renew.go decides what is to be renewed (no I/O, no clock), serve.go decides
// which certificate is served, clock.go knows what time it is for the API server, path.go decides which
// paths are accepted, and keeper.go brings them together with the cluster.
//
// github.com/open-policy-agent/cert-controller, the library for this, does less than a production cluster needs: it replaces
// authority and certificate at once (calls fail until each replica has the new one), never makes a deleted Secret again,
// and holds every Secret of the namespace in memory.
package certs
