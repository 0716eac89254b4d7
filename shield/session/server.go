// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.yaml.in/yaml/v4"

	"github.com/palisade-sec/palisade/shield/attest"
)

// Options of a service.
type Options struct {
	Dir        string                            // state: sessions.db, audit.log; made when missing
	Key        []byte                            // 32 bytes, under which the state is sealed
	Admins     []string                          // fingerprints of the keys that may create sessions
	Collateral func() (attest.Collateral, error) // read anew for each attestation
	AllowSim   bool                              // let sessions allow the simulation
	Log        *slog.Logger                      // nil: none
	Now        func() time.Time                  // nil: time.Now
}

// Service answers requests. Use Open, then Serve or Handler.
type Service struct {
	o     Options
	store *store
	audit *audit
	key   crypto.Signer

	mu     sync.Mutex
	nonces map[string]nonce // by client fingerprint
	leases map[lease]time.Time
}

type nonce struct {
	value   []byte
	expires time.Time
}

// lease is an attested client's right to report generations of a session.
type lease struct{ client, session string }

const (
	nonceLife = 5 * time.Minute
	leaseLife = 24 * time.Hour
	maxNonces = 100_000
)

// Open opens a service's state, making it at first.
func Open(o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if len(o.Key) != 32 {
		return nil, fmt.Errorf("key is %d bytes, want 32", len(o.Key))
	}
	for _, a := range o.Admins {
		if !keyRE().MatchString(a) {
			return nil, fmt.Errorf("administrator %q: want a key's fingerprint (64 hexadecimal digits)", a)
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	st, err := openStore(filepath.Join(o.Dir, "sessions.db"), o.Key)
	if err != nil {
		return nil, err
	}
	s := &Service{o: o, store: st, nonces: map[string]nonce{}, leases: map[lease]time.Time{}}
	if err := s.open(); err != nil {
		st.close()
		return nil, err
	}
	return s, nil
}

func (s *Service) open() error {
	b, err := s.store.secret(keyTLS, NewKey)
	if err != nil {
		return fmt.Errorf("service key: %w", err)
	}
	if s.key, err = ParseKey(b); err != nil {
		return fmt.Errorf("service key: %w", err)
	}
	mac, err := s.store.derive("palisade session store 1 audit")
	if err != nil {
		return err
	}
	var end auditEnd
	err = s.store.db.View(func(tx *bolt.Tx) error { return s.store.get(tx, bucketMeta, keyAudit, &end) })
	if err != nil && !errors.Is(err, errNotFound) {
		return err
	}
	s.audit, err = openAudit(filepath.Join(s.o.Dir, "audit.log"), mac, end, func(e auditEnd) error {
		return s.store.db.Update(func(tx *bolt.Tx) error { return s.store.put(tx, bucketMeta, keyAudit, e) })
	})
	return err
}

// Close closes the state.
func (s *Service) Close() error {
	return errors.Join(s.audit.f.Close(), s.store.close())
}

// Fingerprint names the service's key: what clients pin.
func (s *Service) Fingerprint() (string, error) { return Fingerprint(s.key.Public()) }

// Serve answers on a listener until the context ends.
func (s *Service) Serve(ctx context.Context, l net.Listener) error {
	c, err := serverTLS(s.key)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: s.handler(), TLSConfig: c, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return srv.Shutdown(stop)
	}
}

// Handler is the API. Requests must have come over TLS with a client key.
func (s *Service) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(*request) (any, error){
		"POST /v1/nonce":                                 s.nonce,
		"POST /v1/sessions":                              s.create,
		"GET /v1/sessions":                               s.list,
		"GET /v1/sessions/{name}":                        s.get,
		"PUT /v1/sessions/{name}":                        s.update,
		"POST /v1/sessions/{name}/config":                s.config,
		"POST /v1/sessions/{name}/volumes/{volume}/root": s.root,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, h) })
	}
	return mux
}

// request is one request with the key of its connection.
type request struct {
	*http.Request
	client string
	pub    crypto.PublicKey
	event  event
}

// httpError is an error with its status.
type httpError struct {
	status int
	err    error
	fields []string
}

func (e *httpError) Error() string { return e.err.Error() }
func (e *httpError) Unwrap() error { return e.err }

func refuse(status int, format string, args ...any) error {
	return &httpError{status: status, err: fmt.Errorf(format, args...)}
}

// Problem is the body of an answer that is an error.
type Problem struct {
	Error  string   `json:"error"`
	Fields []string `json:"fields,omitempty"` // of the evidence
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request, h func(*request) (any, error)) {
	req := &request{Request: r}
	if r.TLS == nil || r.TLS.Version < 0x0304 || len(r.TLS.PeerCertificates) == 0 {
		http.Error(w, "TLS 1.3 with a client key is needed", http.StatusForbidden)
		return
	}
	req.pub = r.TLS.PeerCertificates[0].PublicKey
	fp, err := Fingerprint(req.pub)
	if err != nil {
		http.Error(w, "unknown kind of key", http.StatusForbidden)
		return
	}
	req.client = fp
	r.Body = http.MaxBytesReader(w, r.Body, 2<<20)
	req.event = event{Time: s.o.Now().UTC(), Client: fp, Action: r.Method + " " + r.Pattern[strings.IndexByte(r.Pattern, '/'):], Session: r.PathValue("name"), Outcome: "allowed"}
	v, err := h(req)
	status := http.StatusOK
	if err != nil {
		status = statusOf(err)
		req.event.Outcome, req.event.Detail = "refused", err.Error()
		v = Problem{Error: err.Error()}
		var he *httpError
		if errors.As(err, &he) && he.fields != nil {
			v = Problem{Error: err.Error(), Fields: he.fields}
		}
	}
	// No answer without its line in the log; nonces and lists give nothing away.
	if r.Pattern != "POST /v1/nonce" || err != nil {
		if err := s.audit.write(req.event); err != nil {
			s.o.Log.Error("audit log", "error", err)
			http.Error(w, "the audit log cannot be written", http.StatusInternalServerError)
			return
		}
	}
	s.o.Log.Info(req.event.Action, "client", fp[:16], "session", req.event.Session, "outcome", req.event.Outcome, "detail", req.event.Detail, "taint", req.event.Taint)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.o.Log.Debug("answer", "error", err)
	}
}

func statusOf(err error) int {
	var he *httpError
	switch {
	case errors.As(err, &he):
		return he.status
	case errors.Is(err, errNotFound):
		return http.StatusNotFound
	case errors.Is(err, errExists), errors.Is(err, errPredecessor), errors.Is(err, errStale):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

// nonce gives the client the value that its evidence must bind.
func (s *Service) nonce(r *request) (any, error) {
	n := nonce{value: make([]byte, 32), expires: s.o.Now().Add(nonceLife)}
	if _, err := rand.Read(n.value); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.nonces) >= maxNonces {
		for k, old := range s.nonces {
			if s.o.Now().After(old.expires) {
				delete(s.nonces, k)
			}
		}
		if len(s.nonces) >= maxNonces {
			return nil, refuse(http.StatusServiceUnavailable, "too many clients")
		}
	}
	s.nonces[r.client] = n
	return map[string][]byte{"nonce": n.value}, nil
}

// takeNonce takes the client's nonce: each is good once.
func (s *Service) takeNonce(client string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.nonces[client]
	delete(s.nonces, client)
	if !ok || s.o.Now().After(n.expires) {
		return nil, refuse(http.StatusForbidden, "no nonce was asked for, or it is too old")
	}
	return n.value, nil
}

// Created is the answer to a change.
type Created struct {
	Name string `json:"name"`
	Hash string `json:"hash"`
}

func (r *request) session() (*Session, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "read session: %w", err)
	}
	n, err := Parse(b)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	r.event.Session = n.Name
	return n, nil
}

func (s *Service) create(r *request) (any, error) {
	if !member(s.o.Admins, r.client) {
		return nil, refuse(http.StatusForbidden, "key %s may not create sessions", r.client)
	}
	n, err := r.session()
	if err != nil {
		return nil, err
	}
	rec, err := s.store.create(n, r.client, s.o.Now().UTC())
	if err != nil {
		return nil, err
	}
	r.event.Detail = "hash " + rec.Hash
	return Created{n.Name, rec.Hash}, nil
}

func (s *Service) update(r *request) (any, error) {
	n, err := r.session()
	if err != nil {
		return nil, err
	}
	if n.Name != r.PathValue("name") {
		return nil, refuse(http.StatusBadRequest, "session is called %s", n.Name)
	}
	rec, err := s.store.update(n, func(old *record) error {
		if !member(old.Session.Access.Update, r.client) {
			return refuse(http.StatusForbidden, "key %s may not change session %s", r.client, n.Name)
		}
		return nil
	}, s.o.Now().UTC())
	if err != nil {
		return nil, err
	}
	r.event.Detail = "hash " + rec.Hash
	return Created{n.Name, rec.Hash}, nil
}

func (rec *record) readable(client string) bool {
	return member(rec.Session.Access.Read, client) || member(rec.Session.Access.Update, client)
}

// View is a session as its readers see it: without the values of secrets.
type View struct {
	Hash    string            `json:"hash"`
	Created time.Time         `json:"created"`
	Updated time.Time         `json:"updated"`
	Roots   map[string]string `json:"roots"`
	Session string            `json:"session,omitempty"` // YAML
	Name    string            `json:"name"`
}

func (s *Service) get(r *request) (any, error) {
	rec, err := s.store.session(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if !rec.readable(r.client) {
		// As if it did not exist: names are the readers' own business.
		return nil, errNotFound
	}
	y, err := yaml.Marshal(rec.Session.redacted())
	if err != nil {
		return nil, err
	}
	return View{Hash: rec.Hash, Created: rec.Created, Updated: rec.Updated, Roots: rec.Roots, Session: string(y), Name: rec.Session.Name}, nil
}

func (s *Service) list(r *request) (any, error) {
	all, err := s.store.list()
	if err != nil {
		return nil, err
	}
	out := []View{}
	for _, rec := range all {
		if rec.readable(r.client) {
			out = append(out, View{Hash: rec.Hash, Created: rec.Created, Updated: rec.Updated, Roots: rec.Roots, Name: rec.Session.Name})
		}
	}
	slices.SortFunc(out, func(a, b View) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// config verifies evidence and gives the program what the session has for it.
func (s *Service) config(r *request) (any, error) {
	var in struct {
		Evidence []byte `json:"evidence"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, refuse(http.StatusBadRequest, "read request: %w", err)
	}
	n, err := s.takeNonce(r.client)
	if err != nil {
		return nil, err
	}
	rec, err := s.store.session(r.PathValue("name"))
	if errors.Is(err, errNotFound) {
		// The same answer as for evidence that does not fit: who is not attested
		// learns nothing.
		return nil, refuse(http.StatusForbidden, "evidence refused")
	}
	if err != nil {
		return nil, err
	}
	claims, err := s.verify(&rec.Session.Attestation, in.Evidence, r.pub, n)
	if err != nil {
		return nil, &httpError{status: http.StatusForbidden, err: fmt.Errorf("evidence refused: %s", strings.ReplaceAll(err.Error(), "\n", "; ")), fields: attest.Fields(err)}
	}
	taint := ""
	if claims.TEE == attest.Sim {
		taint = "sim"
	}
	r.event.Taint = taint
	r.event.Detail = fmt.Sprintf("%s %s measurement %s tcb %s platform %s", claims.TEE, claims.Evidence, claims.Measurement, claims.TCBStatus, claims.PlatformID)
	s.mu.Lock()
	s.leases[lease{r.client, rec.Session.Name}] = s.o.Now().Add(leaseLife)
	for l, until := range s.leases {
		if s.o.Now().After(until) {
			delete(s.leases, l)
		}
	}
	s.mu.Unlock()
	return rec.config(taint), nil
}

// verify asks everything that a session asks of evidence.
func (s *Service) verify(a *Attestation, evidence []byte, client crypto.PublicKey, n []byte) (attest.Claims, error) {
	p := a.Policy()
	p.AllowSim = p.AllowSim && s.o.AllowSim
	if s.o.Collateral != nil {
		c, err := s.o.Collateral()
		if err != nil {
			return attest.Claims{}, fmt.Errorf("read collateral: %w", err)
		}
		p.Collateral = c
	}
	want, err := boundData(client, n)
	if err != nil {
		return attest.Claims{}, err
	}
	p.ReportData = want[:]
	c, err := attest.Verify(evidence, p, s.o.Now())
	if err != nil {
		return c, err
	}
	if len(a.Platforms) > 0 && !slices.ContainsFunc(a.Platforms, func(x string) bool { return strings.EqualFold(x, c.PlatformID) }) {
		return c, &attest.FieldError{Field: "platform_id", Reason: "is " + c.PlatformID + ", which the session does not list"}
	}
	return c, nil
}

// root notes a new root of a volume, from a client that was attested for the session.
func (s *Service) root(r *request) (any, error) {
	var in struct {
		Root string `json:"root"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, refuse(http.StatusBadRequest, "read request: %w", err)
	}
	name := r.PathValue("name")
	s.mu.Lock()
	until, ok := s.leases[lease{r.client, name}]
	s.mu.Unlock()
	if !ok || s.o.Now().After(until) {
		return nil, refuse(http.StatusForbidden, "key %s was not attested for this session, or too long ago", r.client)
	}
	if _, err := ParseRoot(in.Root); err != nil {
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	r.event.Detail = r.PathValue("volume") + " " + in.Root
	if err := s.store.advance(name, r.PathValue("volume"), in.Root, func(*record) error { return nil }); err != nil {
		return nil, err
	}
	return map[string]string{"root": in.Root}, nil
}

func member(list []string, fp string) bool {
	found := false
	for _, x := range list {
		found = subtle.ConstantTimeCompare([]byte(x), []byte(fp)) == 1 || found
	}
	return found
}
