// Package ask has the requests that the program stranger sends, and its report of the answers.
package ask

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Request is sent by a number of clients in parallel, each of which repeats it until its time is over.
type Request struct {
	URL string `json:"url"`
	// Body makes it a POST of JSON.
	Body string `json:"body,omitempty"`
	// Containers replaces the word "CONTAINERS" in Body by a list of this many containers, which would be too large for the program's
	// arguments.
	Containers int `json:"containers,omitempty"`
	// Token is sent as the bearer token.
	Token string `json:"token,omitempty"`
	// Certificate is the common name in a client certificate that the program generates.
	Certificate string `json:"certificate,omitempty"`
	// Clients is the number of parallel clients. Default: 1.
	Clients int `json:"clients,omitempty"`
	// For is how long each client repeats the request. Default: it sends the request once.
	For time.Duration `json:"for,omitempty"`
}

// Containers is the word in Request.Body that Request.Containers replaces.
const Containers = `"CONTAINERS"`

// Answer is the last answer to one client.
type Answer struct {
	URL  string `json:"url"`
	Code int    `json:"code,omitempty"`
	// Body is the start of the answer, and Bytes its length.
	Body  string `json:"body,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
	Error string `json:"error,omitempty"`
	// Slowest is the duration of the client's slowest request, and Count the number of its requests.
	Slowest time.Duration `json:"slowest"`
	Count   int           `json:"count"`
}

const (
	// patience is longer than any server needs.
	patience = 2 * time.Minute
	// excerpt bounds the part of an answer that is kept. A log line of more than 16 KiB would be split.
	excerpt = 12 << 10
)

// Send sends the requests, all kinds in parallel, and writes each client's answer as a line of JSON.
func Send(ctx context.Context, requests []Request, out io.Writer) error {
	var clients sync.WaitGroup
	answers := make(chan Answer)
	for _, request := range requests {
		if request.Containers > 0 {
			request.Body = strings.Replace(request.Body, Containers, containers(request.Containers), 1)
		}
		client, err := request.client()
		if err != nil {
			return err
		}
		for range max(1, request.Clients) {
			clients.Go(func() { answers <- request.repeat(ctx, client) })
		}
	}
	go func() { clients.Wait(); close(answers) }()
	encoder := json.NewEncoder(out)
	for answer := range answers {
		if err := encoder.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

func containers(count int) string {
	var list strings.Builder
	list.WriteByte('[')
	for i := range count {
		if i > 0 {
			list.WriteByte(',')
		}
		fmt.Fprintf(&list, `{"name":"c%d","image":"a","command":["a"]}`, i)
	}
	return list.String() + "]"
}

// client uses a new connection for each request, as many strangers would, and trusts every certificate.
func (r Request) client() (*http.Client, error) {
	config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // an attacker doesn't care
	if r.Certificate != "" {
		certificate, err := selfSigned(r.Certificate)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}, nil
}

func (r Request) repeat(ctx context.Context, client *http.Client) Answer {
	var last Answer
	for end := time.Now().Add(r.For); ; {
		began := time.Now()
		answer := r.once(ctx, client)
		answer.Count, answer.Slowest = last.Count+1, max(last.Slowest, time.Since(began))
		last = answer
		if time.Now().After(end) {
			return last
		}
	}
}

func (r Request) once(ctx context.Context, client *http.Client) Answer {
	answer := Answer{URL: r.URL}
	err := func() error {
		method := http.MethodGet
		if r.Body != "" {
			method = http.MethodPost
		}
		request, err := http.NewRequestWithContext(ctx, method, r.URL, strings.NewReader(r.Body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		if r.Token != "" {
			request.Header.Set("Authorization", "Bearer "+r.Token)
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		answer.Code = response.StatusCode
		body, err := io.ReadAll(io.LimitReader(response.Body, excerpt))
		answer.Body = string(body)
		if err != nil {
			return err
		}
		rest, err := io.Copy(io.Discard, response.Body)
		answer.Bytes = int64(len(body)) + rest
		return err
	}()
	if err != nil {
		answer.Error = err.Error()
	}
	return answer
}

func selfSigned(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"system:masters"}},
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	content, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{content}, PrivateKey: key}, err
}
