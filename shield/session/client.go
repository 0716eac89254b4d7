// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client speaks to a service whose key it knows.
type Client struct {
	base string
	key  crypto.Signer
	http *http.Client
}

// RefusedError is an answer that is an error. Fields name what in the evidence
// was refused.
type RefusedError struct {
	Status int
	Problem
}

func (e *RefusedError) Error() string { return e.Problem.Error }

// NewClient makes a client for the service at https://HOST:PORT, whose key has
// the fingerprint.
func NewClient(address, fingerprint string, key crypto.Signer) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("address %q: want https://HOST:PORT", address)
	}
	if !keyRE().MatchString(fingerprint) {
		return nil, fmt.Errorf("fingerprint %q: want 64 hexadecimal digits", fingerprint)
	}
	c, err := clientTLS(key, fingerprint)
	if err != nil {
		return nil, err
	}
	return &Client{
		base: "https://" + u.Host, key: key,
		http: &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{TLSClientConfig: c, TLSHandshakeTimeout: 10 * time.Second}},
	}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		r := &RefusedError{Status: resp.StatusCode}
		if json.Unmarshal(b, &r.Problem) != nil || r.Problem.Error == "" {
			r.Problem.Error = fmt.Sprintf("%s: %s", resp.Status, bytes.TrimSpace(b[:min(len(b), 200)]))
		}
		return r
	}
	return json.Unmarshal(b, out)
}

// Create makes a session of its YAML.
func (c *Client) Create(ctx context.Context, yaml []byte) (out Created, err error) {
	return out, c.do(ctx, http.MethodPost, "/v1/sessions", yaml, &out)
}

// Update replaces a session. The YAML names the hash of the one it replaces as
// its predecessor.
func (c *Client) Update(ctx context.Context, yaml []byte) (out Created, err error) {
	s, err := Parse(yaml)
	if err != nil {
		return out, err
	}
	return out, c.do(ctx, http.MethodPut, "/v1/sessions/"+url.PathEscape(s.Name), yaml, &out)
}

// Get reads a session, without the values of its secrets.
func (c *Client) Get(ctx context.Context, name string) (out View, err error) {
	return out, c.do(ctx, http.MethodGet, "/v1/sessions/"+url.PathEscape(name), nil, &out)
}

// List lists the sessions that the key may read.
func (c *Client) List(ctx context.Context) (out []View, err error) {
	return out, c.do(ctx, http.MethodGet, "/v1/sessions", nil, &out)
}

// Config gets what a session has for this program. evidence makes evidence that
// binds the report data.
func (c *Client) Config(ctx context.Context, name string, evidence func(reportData [64]byte) ([]byte, error)) (*Config, error) {
	var n struct {
		Nonce []byte `json:"nonce"`
	}
	if err := c.do(ctx, http.MethodPost, "/v1/nonce", nil, &n); err != nil {
		return nil, err
	}
	if len(n.Nonce) < 16 {
		return nil, errors.New("service gave a nonce that is too short")
	}
	rd, err := boundData(c.key.Public(), n.Nonce)
	if err != nil {
		return nil, err
	}
	ev, err := evidence(rd)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	body, err := json.Marshal(map[string][]byte{"evidence": ev})
	if err != nil {
		return nil, err
	}
	out := new(Config)
	return out, c.do(ctx, http.MethodPost, "/v1/sessions/"+url.PathEscape(name)+"/config", body, out)
}

// Advance reports a volume's new root; generations only go up.
func (c *Client) Advance(ctx context.Context, name, volume, root string) error {
	body, err := json.Marshal(map[string]string{"root": root})
	if err != nil {
		return err
	}
	var out map[string]string
	return c.do(ctx, http.MethodPost, "/v1/sessions/"+url.PathEscape(name)+"/volumes/"+url.PathEscape(volume)+"/root", body, &out)
}
