// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/shield/attest"
)

// running is a service on a loopback port with its clients.
type running struct {
	t    *testing.T
	s    *Service
	addr string
	fp   string
	stop func()
}

func serviceKey() []byte { return bytes.Repeat([]byte{7}, 32) }

func start(t *testing.T, dir string, sim bool, admins ...string) *running {
	t.Helper()
	s, err := Open(Options{Dir: dir, Key: serviceKey(), Admins: admins, AllowSim: sim})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	fp, err := s.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, s: s, addr: "https://" + l.Addr().String(), fp: fp}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-done
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

func newKey(t *testing.T) (crypto.Signer, string) {
	t.Helper()
	b, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey(b)
	if err != nil {
		t.Fatal(err)
	}
	fp, err := Fingerprint(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k, fp
}

func (r *running) client(k crypto.Signer) *Client {
	r.t.Helper()
	c, err := NewClient(r.addr, r.fp, k)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

func sessionYAML(name, owner, reader, predecessor, extra string) []byte {
	p := ""
	if predecessor != "" {
		p = "predecessor: " + predecessor + "\n"
	}
	return fmt.Appendf(nil, `name: %s
%sattestation:
  tee: [sim, tdx]
  allow_insecure_sim: true
  measurements: [%s]
args: [serve, --password, $$secret:password$$]
environment: {TOKEN: "t-$$secret:token$$"}
files:
  - {path: /etc/app.conf, content: "password=$$secret:password$$\n"}
secrets:
  - {name: password, value: hunter2}
  - {name: token, generate: 16}
  - {name: key, kind: hex, value: "%s"}
volumes:
  - {name: data, path: /data, key: key, root: "3:%s"}
access: {update: [%s], read: [%s]}
%s`, name, p, strings.Repeat("01", 48), strings.Repeat("ab", 32), strings.Repeat("cd", 32), owner, reader, extra)
}

func simEvidence(t *testing.T, measurement byte) func([64]byte) ([]byte, error) {
	t.Helper()
	k, err := attest.NewSimKey(make([]byte, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return func(rd [64]byte) ([]byte, error) {
		return attest.SimEvidence(k, [48]byte(bytes.Repeat([]byte{measurement}, 48)), rd, time.Now())
	}
}

func status(t *testing.T, err error, want int, part string) {
	t.Helper()
	var r *RefusedError
	if !errors.As(err, &r) || r.Status != want || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, want status %d with %q", err, want, part)
	}
}

func TestService(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	adminKey, admin := newKey(t)
	readerKey, reader := newKey(t)
	otherKey, _ := newKey(t)
	progKey, _ := newKey(t)
	r := start(t, dir, true, admin)
	owner, readerC, other, prog := r.client(adminKey), r.client(readerKey), r.client(otherKey), r.client(progKey)

	_, err := other.Create(ctx, sessionYAML("app", admin, reader, "", ""))
	status(t, err, http.StatusForbidden, "may not create")
	made, err := owner.Create(ctx, sessionYAML("app", admin, reader, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	_, err = owner.Create(ctx, sessionYAML("app", admin, reader, "", ""))
	status(t, err, http.StatusConflict, "exists")
	_, err = owner.Create(ctx, []byte("name: bad name\nattestation: {}\n"))
	status(t, err, http.StatusBadRequest, "access.update")

	// Who may read sees the session without its secrets; others see nothing.
	v, err := readerC.Get(ctx, "app")
	if err != nil || v.Hash != made.Hash || strings.Contains(v.Session, "hunter2") || strings.Contains(v.Session, "abab") || !strings.Contains(v.Session, "password") {
		t.Errorf("reader: %v\n%s", err, v.Session)
	}
	_, err = other.Get(ctx, "app")
	status(t, err, http.StatusNotFound, "")
	if l, err := other.List(ctx); err != nil || len(l) != 0 {
		t.Errorf("other's list: %v, %v", l, err)
	}
	if l, err := readerC.List(ctx); err != nil || len(l) != 1 {
		t.Errorf("reader's list: %v, %v", l, err)
	}

	// Programs: evidence of the right measurement, bound to the connection.
	c, err := prog.Config(ctx, "app", simEvidence(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	if c.Taint != "sim" || c.Args[2] != "hunter2" || string(c.Files[0].Content) != "password=hunter2\n" || c.Files[0].Mode != 0o400 ||
		len(c.Secrets["token"]) != 16 || c.Environment["TOKEN"] != "t-"+hex.EncodeToString(c.Secrets["token"]) ||
		hex.EncodeToString(c.Volumes[0].Key) != strings.Repeat("ab", 32) || !strings.HasPrefix(c.Volumes[0].Root, "3:") {
		t.Errorf("config: %+v", c)
	}
	_, err = prog.Config(ctx, "app", simEvidence(t, 2))
	status(t, err, http.StatusForbidden, "measurement")
	_, err = prog.Config(ctx, "nosuch", simEvidence(t, 1))
	status(t, err, http.StatusForbidden, "evidence refused")
	var stolen []byte
	if _, err = prog.Config(ctx, "app", func(rd [64]byte) ([]byte, error) { stolen, _ = simEvidence(t, 1)(rd); return stolen, nil }); err != nil {
		t.Error(err)
	}
	_, err = other.Config(ctx, "app", func([64]byte) ([]byte, error) { return stolen, nil })
	status(t, err, http.StatusForbidden, "report_data")
	_, err = prog.Config(ctx, "app", func([64]byte) ([]byte, error) { return stolen, nil })
	status(t, err, http.StatusForbidden, "report_data") // an old nonce
	_, err = prog.Config(ctx, "app", func([64]byte) ([]byte, error) { return []byte("junk"), nil })
	status(t, err, http.StatusForbidden, "evidence")

	// Generations only go up, and only attested programs report them.
	root := func(g int, c string) string { return fmt.Sprintf("%d:%s", g, strings.Repeat(c, 32)) }
	status(t, other.Advance(ctx, "app", "data", root(4, "aa")), http.StatusForbidden, "not attested")
	if err := prog.Advance(ctx, "app", "data", root(5, "aa")); err != nil {
		t.Error(err)
	}
	status(t, prog.Advance(ctx, "app", "data", root(4, "aa")), http.StatusConflict, "does not go up")
	status(t, prog.Advance(ctx, "app", "data", root(5, "bb")), http.StatusConflict, "does not go up")
	status(t, prog.Advance(ctx, "app", "data", "nonsense"), http.StatusBadRequest, "GENERATION")
	status(t, prog.Advance(ctx, "app", "nosuch", root(9, "aa")), http.StatusNotFound, "")

	// Updates name their predecessor; roots and generated secrets stay.
	_, err = other.Update(ctx, sessionYAML("app", admin, reader, made.Hash, ""))
	status(t, err, http.StatusForbidden, "may not change")
	_, err = owner.Update(ctx, sessionYAML("app", admin, reader, "", ""))
	status(t, err, http.StatusConflict, "predecessor")
	stale := sessionYAML("app", admin, reader, made.Hash, "")
	_, err = owner.Update(ctx, stale) // names root 3, 5 is known
	status(t, err, http.StatusConflict, "does not go up")
	fresh := bytes.Replace(stale, []byte(`, root: "3:`+strings.Repeat("cd", 32)+`"`), nil, 1)
	second, err := owner.Update(ctx, fresh)
	if err != nil || second.Hash == made.Hash {
		t.Fatalf("%v %v", second, err)
	}
	_, err = owner.Update(ctx, fresh)
	status(t, err, http.StatusConflict, "predecessor")
	token := c.Secrets["token"]
	if c, err = prog.Config(ctx, "app", simEvidence(t, 1)); err != nil || c.Volumes[0].Root != root(5, "aa") || !bytes.Equal(c.Secrets["token"], token) || c.Hash != second.Hash {
		t.Errorf("%+v, %v", c, err)
	}
	r.stop()

	// At rest nothing is in clear but the log, which has no secrets.
	for _, f := range []string{"sessions.db", "audit.log"} {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"hunter2", strings.Repeat("ab", 32), string(bytes.Repeat([]byte{0xab}, 32)), string(token), "PRIVATE KEY"} {
			if bytes.Contains(b, []byte(s)) {
				t.Errorf("%s holds %q", f, s)
			}
		}
		if f == "sessions.db" && bytes.Contains(b, []byte("app.conf")) {
			t.Error("the store shows sessions in clear")
		}
	}
	if _, err := Open(Options{Dir: dir, Key: bytes.Repeat([]byte{8}, 32)}); !errors.Is(err, errWrongKey) {
		t.Errorf("with another key: %v", err)
	}

	// A restart keeps all, and a service that does not allow the simulation refuses it.
	r = start(t, dir, false, admin)
	if r.fp == "" {
		t.Error("no key")
	}
	_, err = r.client(progKey).Config(ctx, "app", simEvidence(t, 1))
	status(t, err, http.StatusForbidden, "simulation")
	if l, err := r.client(adminKey).List(ctx); err != nil || len(l) != 1 || l[0].Roots["data"] != root(5, "aa") {
		t.Errorf("%v %v", l, err)
	}
	r.stop()

	// The log cannot be changed.
	log := filepath.Join(dir, "audit.log")
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	for name, bad := range map[string][]byte{
		"edited":    bytes.Replace(b, []byte(`"refused"`), []byte(`"allowed"`), 1),
		"line out":  append(bytes.Clone(lines[0]), bytes.Join(lines[2:], nil)...),
		"end off":   bytes.Join(lines[:len(lines)-1], nil),
		"all gone":  nil,
		"swapped":   bytes.Join(append([][]byte{lines[1], lines[0]}, lines[2:]...), nil),
		"with junk": append(bytes.Clone(b), "{}\n"...),
	} {
		if err := os.WriteFile(log, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(Options{Dir: dir, Key: serviceKey()}); err == nil {
			s.Close()
			t.Errorf("audit log %s: accepted", name)
		}
	}
	// A line that a crash cut short is taken off.
	if err := os.WriteFile(log, append(bytes.Clone(b), `{"seq":9`...), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Dir: dir, Key: serviceKey()})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestTLS(t *testing.T) {
	k, fp := newKey(t)
	r := start(t, t.TempDir(), false, fp)
	c, err := NewClient(r.addr, strings.Repeat("0", 64), k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.List(t.Context()); err == nil || !strings.Contains(err.Error(), "expected 000") {
		t.Errorf("another server key: %v", err)
	}
	tr := &http.Transport{TLSClientConfig: mustTLS(t, k, r.fp)}
	tr.TLSClientConfig.MaxVersion, tr.TLSClientConfig.MinVersion = 0x0303, 0x0303
	if _, err := (&http.Client{Transport: tr}).Get(r.addr + "/v1/sessions"); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
	tr = &http.Transport{TLSClientConfig: mustTLS(t, k, r.fp)}
	tr.TLSClientConfig.Certificates = nil
	if resp, err := (&http.Client{Transport: tr}).Get(r.addr + "/v1/sessions"); err == nil {
		resp.Body.Close()
		t.Error("a client without a key was accepted")
	}
}

func TestParse(t *testing.T) {
	_, fp := newKey(t)
	good := string(sessionYAML("app", fp, fp, "", ""))
	s, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse([]byte(strings.Replace(good, "args: [serve,", "# a comment\nargs: [ serve,", 1)))
	if err != nil || again.Hash() != s.Hash() {
		t.Errorf("the hash depends on how the session is written: %v", err)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"unknown key", "args:", "argz:", "line 6"},
		{"sim", "allow_insecure_sim: true", "allow_insecure_sim: false", "line 3: attestation.tee: sim protects nothing"},
		{"any program", "measurements: [" + strings.Repeat("01", 48) + "]", "measurements: []", "any program"},
		{"short measurement", strings.Repeat("01", 48), "0101", "line 5: attestation.measurements: \"0101\" is not 32 or 48 bytes"},
		{"no secret", "$$secret:password$$]", "$$secret:nosuch$$]", "line 6: args[2]: no secret nosuch"},
		{"short key", strings.Repeat("ab", 32), "abab", "line 15: volume data: secret key is 2 bytes, a key is 32"},
		{"root", `"3:`, `"x:`, "GENERATION"},
		{"tee", "[sim, tdx]", "[sim, tpm]", "tpm"},
		{"twice", "{name: token, generate: 16}", "{name: password, generate: 16}", "given twice"},
		{"path", "/etc/app.conf", "etc/app.conf", "line 9: file"},
		{"not YAML", "args: [", "args: [[", "line 7"},
		{"two volumes at one path", "volumes:\n", "volumes:\n  - {name: other, path: /data, key: key}\n", "line 16: volumes other and data are both at /data"},
		{"two volumes of one name", "volumes:\n", "volumes:\n  - {name: data, path: /other, key: key}\n", "line 16: volume data is given twice"},
		{"nobody", "update: [" + fp + "]", "update: []", "nobody"},
		{"two documents", "access:", "---\naccess:", ""},
		{"many keys", "{TOKEN:", "{" + strings.Repeat("A: a, ", 5000) + "TOKEN:", "line 7: 5001 keys, at most 4096"},
	} {
		if _, err := Parse([]byte(strings.Replace(good, tt.old, tt.new, 1))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sessionYAML("app", strings.Repeat("0", 64), strings.Repeat("1", 64), "", ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := Parse(b); err == nil {
			s.Hash()
			r := record{Session: *s}
			if err := r.fill(nil); err != nil {
				t.Error(err)
			}
			r.config("")
		}
	})
}

func mustTLS(t *testing.T, k crypto.Signer, fp string) *tls.Config {
	t.Helper()
	c, err := clientTLS(k, fp)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
