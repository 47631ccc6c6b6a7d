// Package certs gives the webhook its serving certificate, and the API server the authority to trust it by.
//
// The operator keeps both itself: github.com/open-policy-agent/cert-controller makes them, keeps them in a Secret, writes
// the authority into the webhook configuration, and renews both before they expire. This package wires it, and
// brings the certificate from the Secret into the file that the webhook's server reads.
package certs
