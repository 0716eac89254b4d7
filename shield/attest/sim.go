// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Simulated evidence looks like nothing that a vendor makes, says of itself that
// it protects nothing, and is refused unless a policy asks for it.

const simDomain = "palisade simulated evidence v1\x00"

// simEvidence is the document. Its encoding is canonical: another one is refused.
type simEvidence struct {
	Type            string `json:"type"` // sim
	Version         int    `json:"version"`
	Confidentiality string `json:"confidentiality"` // none
	HostIsolation   string `json:"host_isolation"`  // none
	Debug           bool   `json:"debug"`           // true
	Measurement     string `json:"measurement"`
	ReportData      string `json:"report_data"`
	Time            int64  `json:"time"`
	Signer          string `json:"signer"` // Ed25519 public key
	Signature       string `json:"signature,omitempty"`
}

// SimClaims are what simulated evidence says of itself.
type SimClaims struct {
	Signer string `json:"signer"` // the software key that signed
	Time   int64  `json:"time"`
	Taint  string `json:"taint"`
}

// NewSimKey derives the software key of the simulation from a seed, in a domain
// of its own: a seed that is used for anything else gives nothing away here.
func NewSimKey(seed []byte) (ed25519.PrivateKey, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("seed of %d bytes, want %d", len(seed), ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// SimMeasurement is what the simulation measures: the shim, and the program when
// it comes from the host (zero when it comes from a volume, whose key and root
// vouch for it).
func SimMeasurement(shim, program [32]byte) [48]byte {
	h := sha512.New384()
	h.Write([]byte("palisade simulated measurement v1\x00"))
	h.Write(shim[:])
	h.Write(program[:])
	return [48]byte(h.Sum(nil))
}

// SimEvidence makes simulated evidence for a measurement of 48 bytes.
func SimEvidence(key ed25519.PrivateKey, measurement [48]byte, reportData [64]byte, now time.Time) ([]byte, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("no Ed25519 key")
	}
	e := simEvidence{
		Type: "sim", Version: 1, Confidentiality: "none", HostIsolation: "none", Debug: true,
		Measurement: hex.EncodeToString(measurement[:]), ReportData: hex.EncodeToString(reportData[:]), Time: now.Unix(), Signer: hex.EncodeToString(pub),
	}
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	e.Signature = hex.EncodeToString(ed25519.Sign(key, append([]byte(simDomain), body...)))
	return json.Marshal(e)
}

func verifySim(b []byte, p *Policy, _ time.Time) (Claims, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var e simEvidence
	if err := d.Decode(&e); err != nil {
		return Claims{}, bad("evidence", "is not simulated evidence: %v", err)
	}
	again, err := json.Marshal(e)
	if err != nil {
		return Claims{}, err
	}
	if !bytes.Equal(again, bytes.TrimSuffix(b, []byte("\n"))) {
		return Claims{}, bad("evidence", "is not in canonical form")
	}
	key, err := hex.DecodeString(e.Signer)
	if err != nil || !isHex(e.Signer, ed25519.PublicKeySize) {
		return Claims{}, bad("signer", "is not an Ed25519 public key")
	}
	sig, err := hex.DecodeString(e.Signature)
	if err != nil || !isHex(e.Signature, ed25519.SignatureSize) {
		return Claims{}, bad("signature", "is not an Ed25519 signature in lower-case hexadecimal")
	}
	e.Signature = ""
	body, err := json.Marshal(e)
	if err != nil {
		return Claims{}, err
	}
	if !ed25519.Verify(key, append([]byte(simDomain), body...), sig) {
		return Claims{}, bad("signature", "does not verify")
	}
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"type", e.Type == "sim"},
		{"version", e.Version == 1},
		{"confidentiality", e.Confidentiality == "none"},
		{"host_isolation", e.HostIsolation == "none"},
		{"debug", e.Debug},
		{"measurement", isHex(e.Measurement, 48)},
		{"report_data", isHex(e.ReportData, 64)},
	} {
		if !f.ok {
			return Claims{}, bad(f.name, "is not what simulated evidence says of itself")
		}
	}
	return Claims{
		TEE: Sim, Evidence: "sim v1", Measurement: e.Measurement, Signer: e.Signer, ReportData: e.ReportData, Debug: true,
		Confidentiality: "none", HostIsolation: "none", TCBStatus: NotEvaluated, Platform: "sim",
		Sim: &SimClaims{Signer: e.Signer, Time: e.Time, Taint: "sim"},
	}, nil
}

func isHex(s string, n int) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == n && hex.EncodeToString(b) == s
}
