package certs

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	names = []string{"taskflow-webhook-a.taskflow-system.svc", "taskflow-webhook-b.taskflow-system.svc"}
	lives = Lifetimes{Authority: 300 * day, Serving: 30 * day}
)

const day = 24 * time.Hour

// fresh returns the Secret's content at the start.
func fresh(t *testing.T) map[string][]byte {
	t.Helper()
	return renewed(t, nil, nil, start).data
}

func renewed(t *testing.T, data map[string][]byte, trusted []byte, now time.Time) renewal {
	t.Helper()
	r, err := renew(data, parseCerts(trusted), names, lives, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRenewTheFirstTime proves that an empty Secret gets an authority and a certificate, valid also for a clock that is a day behind, and
// that nothing is renewed before a third of the certificate's lifetime is left.
func TestRenewTheFirstTime(t *testing.T) {
	r := renewed(t, nil, nil, start)
	if r.why != "there is no certificate yet" {
		t.Errorf("the reason is %q", r.why)
	}
	for _, now := range []time.Time{start.Add(-day), start, start.Add(30 * day)} {
		served, err := parseServed(r.data)
		if err != nil {
			t.Fatal(err)
		}
		if now.Before(served.Leaf.NotBefore) || now.After(served.Leaf.NotAfter) || !isTrusted(parseCerts(r.data[bundleFile]), served, names, now) {
			t.Errorf("at %s the certificate isn't valid", now)
		}
	}
	if want := start.Add(20 * day); !r.again.Equal(want) {
		t.Errorf("the next renewal is at %s, want %s", r.again, want)
	}
	again := renewed(t, r.data, r.data[bundleFile], start.Add(20*day))
	if diff := cmp.Diff(r.data, again.data); diff != "" || again.why != "" {
		t.Errorf("renewed before its time, since %q (-before +after):\n%s", again.why, diff)
	}
}

// TestRenew proves what is replaced in each state of the Secret, and that the authority that was trusted always stays trusted, because the
// replicas still serve its certificate.
func TestRenew(t *testing.T) {
	other := fresh(t)
	cases := map[string]struct {
		edit func(data map[string][]byte)
		now  time.Time
		why  string
		// which parts are new
		authority, served bool
	}{
		"nothing to do":                {func(map[string][]byte) {}, start, "", false, false},
		"a clock that is a day behind": {func(map[string][]byte) {}, start.Add(-day), "", false, false},
		"issued by a clock that was ahead": {
			func(map[string][]byte) {}, start.Add(-day - time.Second), "the authority is not valid before 2029-12-31T00:00:00Z", true, true,
		},
		"only the certificate issued by a clock that was ahead": {
			func(data map[string][]byte) {
				signer, _, err := parseAuthority(data)
				if err == nil {
					data[certFile], data[keyFile], err = issue(signer, names, start.Add(2*day), lives.Serving)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
			start, "the certificate is not valid before 2030-01-02T00:00:00Z", false, true,
		},
		"a third of the certificate's life": {
			func(map[string][]byte) {}, start.Add(20*day + time.Second), "the certificate expires at 2030-01-31T00:00:00Z", false, true,
		},
		"the certificate has ended": {
			func(map[string][]byte) {}, start.Add(31 * day), "the certificate expires at 2030-01-31T00:00:00Z", false, true,
		},
		"a third of the authority's life": {
			func(map[string][]byte) {}, start.Add(200*day + time.Second), "the authority expires at 2030-10-28T00:00:00Z", true, true,
		},
		"emptied": {func(data map[string][]byte) { clear(data) }, start, "there is no certificate yet", true, true},
		"no authority": {
			func(data map[string][]byte) { delete(data, bundleFile) }, start, "ca.crt holds no certificate", true, true,
		},
		"nonsense for an authority": {
			func(data map[string][]byte) { data[bundleFile] = []byte("nonsense") }, start, "ca.crt holds no certificate", true, true,
		},
		"a broken authority": {
			func(data map[string][]byte) { data[bundleFile] = data[bundleFile][:100] }, start, "ca.crt holds no certificate", true, true,
		},
		"an authority that isn't one": {
			func(data map[string][]byte) { data[bundleFile], data[caKeyFile] = data[certFile], data[keyFile] },
			start, "the first certificate in ca.crt is not an authority", true, true,
		},
		"no key of the authority": {func(data map[string][]byte) { delete(data, caKeyFile) }, start, "ca.crt and ca.key: tls: failed to find any PEM data in key input", true, true},
		"nonsense for a key":      {func(data map[string][]byte) { data[caKeyFile] = []byte("nonsense") }, start, "ca.crt and ca.key: tls: failed to find any PEM data in key input", true, true},
		"a certificate for a key": {func(data map[string][]byte) { data[caKeyFile] = data[certFile] }, start, "ca.crt and ca.key: tls: found a certificate rather than a key in the PEM for the private key", true, true},
		"another authority's key": {func(data map[string][]byte) { data[caKeyFile] = other[caKeyFile] }, start, "ca.crt and ca.key: tls: private key does not match public key", true, true},
		"no certificate":          {func(data map[string][]byte) { delete(data, certFile) }, start, "tls.crt and tls.key: tls: failed to find any PEM data in certificate input", false, true},
		"no key":                  {func(data map[string][]byte) { delete(data, keyFile) }, start, "tls.crt and tls.key: tls: failed to find any PEM data in key input", false, true},
		"another certificate's key": {
			func(data map[string][]byte) { data[keyFile] = other[keyFile] },
			start, "tls.crt and tls.key: tls: private key does not match public key", false, true,
		},
		"another authority's certificate": {
			func(data map[string][]byte) { data[certFile], data[keyFile] = other[certFile], other[keyFile] },
			start, "the certificate is not issued by the authority, or not for these Services", false, true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := fresh(t)
			trusted := before[bundleFile]
			edited := maps.Clone(before)
			c.edit(edited)
			r := renewed(t, edited, trusted, c.now)
			if diff := cmp.Diff(c.why, r.why); diff != "" {
				t.Errorf("the reason (-want +got):\n%s", diff)
			}
			if got := !bytes.Equal(r.data[caKeyFile], before[caKeyFile]); got != c.authority {
				t.Errorf("a new authority is %t, want %t", got, c.authority)
			}
			if got := !bytes.Equal(r.data[certFile], before[certFile]); got != c.served {
				t.Errorf("a new certificate is %t, want %t", got, c.served)
			}
			bundle := parseCerts(r.data[bundleFile])
			served, err := parseServed(r.data)
			if err != nil {
				t.Fatal(err)
			}
			if !isTrusted(bundle[:1], served, names, c.now) {
				t.Error("the authority does not vouch for the certificate")
			}
			if !slices.ContainsFunc(bundle, parseCerts(trusted)[0].Equal) {
				t.Error("the authority that was trusted no longer is")
			}
			if next := renewed(t, r.data, r.data[bundleFile], c.now); next.why != "" {
				t.Errorf("all is new, and it is to be renewed again, since %q", next.why)
			}
			if !r.again.After(c.now) {
				t.Errorf("at %s the next look is at %s", c.now, r.again)
			}
		})
	}
}

// TestRenewDropsFormerAuthorities proves that a former authority is trusted for a day, and that a Secret that is damaged again and again
// does not lead to an endless bundle.
func TestRenewDropsFormerAuthorities(t *testing.T) {
	data := fresh(t)
	for range 10 {
		trusted := data[bundleFile]
		data = renewed(t, nil, trusted, start).data
	}
	if got, want := len(parseCerts(data[bundleFile])), formerAuthorities+1; got != want {
		t.Errorf("the bundle holds %d authorities, want %d", got, want)
	}
	r := renewed(t, data, data[bundleFile], start.Add(day))
	if r.why != "" || !r.again.Equal(start.Add(day)) {
		t.Errorf("after a day: renewed since %q, the next look is at %s", r.why, r.again)
	}
	r = renewed(t, data, data[bundleFile], start.Add(day+time.Second))
	if got := len(parseCerts(r.data[bundleFile])); got != 1 || r.why != "a former authority is no longer trusted" {
		t.Errorf("after more than a day the bundle holds %d authorities, want 1; the reason is %q", got, r.why)
	}
	if diff := cmp.Diff(data[certFile], r.data[certFile]); diff != "" {
		t.Errorf("the certificate has changed:\n%s", diff)
	}
}

// TestKeysStaySecret proves that no reason, which is logged, repeats a part of a key.
func TestKeysStaySecret(t *testing.T) {
	data := fresh(t)
	for _, file := range []string{caKeyFile, keyFile} {
		damaged := maps.Clone(data)
		damaged[file] = append([]byte("x"), data[file]...)
		damaged[file] = bytes.Replace(damaged[file], []byte("MIG"), []byte("MIH"), 1)
		r := renewed(t, damaged, nil, start)
		for line := range bytes.Lines(data[file]) {
			if bytes.Contains([]byte(r.why), bytes.TrimSpace(line)) {
				t.Errorf("%s: the reason %q holds the line %q of the key", file, r.why, line)
			}
		}
	}
}

// TestClocksDiffer proves that replicas agree on one certificate although their API servers' clocks differ by up to a day: none renews what
// another has just issued, and the certificate is always valid and trusted by the correct clock.
func TestClocksDiffer(t *testing.T) {
	for _, skew := range []time.Duration{-23 * time.Hour, -time.Minute, time.Hour, 23 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			var data map[string][]byte
			renewals := map[string]int{}
			for now := start; now.Before(start.Add(250 * day)); now = now.Add(12 * time.Hour) {
				for _, clock := range []time.Time{now.Add(skew), now} {
					r := renewed(t, data, data[bundleFile], clock)
					if r.why != "" {
						renewals[strings.Fields(r.why)[1]]++ // "the authority expires at ...", and so on
					}
					data = r.data
				}
				served, err := parseServed(data)
				if err != nil {
					t.Fatal(err)
				}
				if now.Before(served.Leaf.NotBefore) || now.After(served.Leaf.NotAfter) || !isTrusted(parseCerts(data[bundleFile]), served, names, now) {
					t.Fatalf("at %s the certificate isn't valid", now)
				}
			}
			// The first one; every 20 days another certificate; after 200 days another authority, and a day later the end of the former one.
			if diff := cmp.Diff(map[string]int{"is": 1, "certificate": 11, "authority": 1, "former": 1}, renewals); diff != "" {
				t.Errorf("renewals (-want +got):\n%s", diff)
			}
		})
	}
}
