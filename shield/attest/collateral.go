// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/x509"
	_ "embed" // the vendors' roots
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"time"
)

//go:embed roots/intel.pem
var intelRootPEM []byte

//go:embed roots/amd.pem
var amdRootsPEM []byte

var (
	intelRoot    = sync.OnceValue(func() *x509.Certificate { return mustCertificates(intelRootPEM)[0] })
	intelSigners = sync.OnceValue(func() []*x509.Certificate { return mustCertificates(intelRootPEM)[1:] }) // of TCB info and identities
	amdCerts     = sync.OnceValue(func() []*x509.Certificate { return mustCertificates(amdRootsPEM) })
)

func mustCertificates(b []byte) []*x509.Certificate {
	list := certificates(b)
	if len(list) == 0 {
		panic("attest: embedded roots are damaged")
	}
	return list
}

// Collateral is what the vendors publish about their platforms. Use Add to fill it.
type Collateral struct {
	Certificates []*x509.Certificate // TCB signing, VCEK, VLEK, ASK, ARK
	CRLs         []*x509.RevocationList
	TCBInfo      []Signed // Intel's TCB info
	QEIdentity   []Signed // Intel's QE and TD QE identity
	Damaged      []Damage // looked like collateral, but is not
}

// Damage is a file that looked like collateral and could not be read as such.
type Damage struct{ Name, Reason string }

// Signed is a signed JSON document of Intel's Provisioning Certification Service.
type Signed struct {
	Name      string // of the file it came from
	Body      []byte // exactly the signed bytes
	Signature []byte // r ‖ s
}

// Add takes one file of collateral, whatever it is: a document of Intel's
// service as JSON (alone, or with others and their issuer chains in one object),
// certificates and revocation lists in PEM or DER, an issuer chain as it comes in
// an HTTP header. It reports false when it is none of these.
func (c *Collateral) Add(name string, data []byte) bool {
	trimmed := bytes.TrimSpace(data)
	if len(trimmed) > 0 && trimmed[0] == '{' {
		return c.addJSON(name, trimmed)
	}
	if bytes.Contains(data, []byte("%20CERTIFICATE-----")) {
		if s, err := url.QueryUnescape(string(trimmed)); err == nil {
			data = []byte(s)
		}
	}
	found := false
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		found = c.addDER(block.Bytes) || found
	}
	if found {
		return true
	}
	if bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")) || bytes.Contains(data, []byte("-----BEGIN X509 CRL-----")) {
		c.Damaged = append(c.Damaged, Damage{name, "holds no certificate or revocation list that can be read"})
		return true
	}
	if c.addDER(data) {
		return true
	}
	if b, err := hex.DecodeString(string(trimmed)); err == nil && len(b) > 0 {
		return c.addDER(b)
	}
	return false
}

func (c *Collateral) addDER(b []byte) bool {
	if cert, err := x509.ParseCertificate(b); err == nil {
		c.Certificates = append(c.Certificates, cert)
		return true
	}
	if crl, err := x509.ParseRevocationList(b); err == nil {
		c.CRLs = append(c.CRLs, crl)
		return true
	}
	return false
}

func (c *Collateral) addJSON(name string, b []byte) bool {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(b, &doc); err != nil {
		if bytes.Contains(b, []byte(`cbLevel`)) || bytes.Contains(b, []byte(`tcbSt`)) {
			c.Damaged = append(c.Damaged, Damage{name, "is not JSON: " + err.Error()})
			return true
		}
		return false
	}
	str := func(key string) string {
		var s string
		if json.Unmarshal(doc[key], &s) != nil {
			return ""
		}
		return s
	}
	found := false
	add := func(list *[]Signed, body []byte, sig json.RawMessage) {
		found = true
		raw, ok := signature(sig)
		if !ok {
			c.Damaged = append(c.Damaged, Damage{name, "has no ECDSA signature"})
			return
		}
		*list = append(*list, Signed{name, body, raw})
	}
	for _, d := range []struct {
		list    *[]Signed
		key     string
		strings [][2]string // the document as a string, and its signature beside it
	}{
		{&c.TCBInfo, "tcbInfo", [][2]string{{"tcb_info", "tcb_info_signature"}, {"raw_tcb_info", "signature"}}},
		{&c.QEIdentity, "enclaveIdentity", [][2]string{{"qe_identity", "qe_identity_signature"}, {"raw_enclave_identity", "signature"}}},
	} {
		if body := doc[d.key]; body != nil {
			add(d.list, body, doc["signature"])
		}
		for _, k := range d.strings {
			switch s := str(k[0]); {
			case s == "":
			case doc[k[1]] != nil:
				add(d.list, []byte(s), doc[k[1]])
			default:
				found = c.addJSON(name, []byte(s)) || found
			}
		}
	}
	for key, raw := range doc {
		// Chains and revocation lists in one object with the rest, as quote
		// verification libraries pass them on: a string or a list of them.
		var list []string
		if s := str(key); s != "" {
			list = []string{s}
		} else if json.Unmarshal(raw, &list) != nil {
			continue
		}
		for _, s := range list {
			if strings.Contains(s, "BEGIN CERTIFICATE") || strings.Contains(s, "BEGIN%20CERTIFICATE") || strings.HasSuffix(key, "crl") {
				found = c.Add(name+"."+key, []byte(s)) || found
			}
		}
	}
	if !found && (bytes.Contains(b, []byte(`cbLevel`)) || bytes.Contains(b, []byte(`tcbSt`))) {
		c.Damaged = append(c.Damaged, Damage{name, "is neither TCB info nor an enclave identity"})
		found = true
	}
	return found
}

// signature reads r ‖ s in hexadecimal, or bytes as a list of numbers: r ‖ s or
// the ASN.1 form.
func signature(raw json.RawMessage) ([]byte, bool) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		b, err := hex.DecodeString(text)
		return b, err == nil && len(b) == 64
	}
	var numbers []uint8
	var wide []uint16
	if json.Unmarshal(raw, &wide) != nil {
		return nil, false
	}
	for _, n := range wide {
		if n > 255 {
			return nil, false
		}
		numbers = append(numbers, uint8(n))
	}
	if len(numbers) == 64 {
		return numbers, true
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(numbers, &rs); err != nil || len(rest) > 0 || rs.R.Sign() < 0 || rs.S.Sign() < 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
		return nil, false
	}
	out := make([]byte, 64)
	rs.R.FillBytes(out[:32])
	rs.S.FillBytes(out[32:])
	return out, true
}

// certificates reads all certificates of a PEM text.
func certificates(b []byte) []*x509.Certificate {
	var list []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return list
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			list = append(list, c)
		}
	}
}

// validAt says why a certificate is not valid at a time.
func validAt(c *x509.Certificate, now time.Time) string {
	switch {
	case now.Before(c.NotBefore):
		return "is not valid before " + c.NotBefore.UTC().Format(time.RFC3339)
	case now.After(c.NotAfter):
		return "expired on " + c.NotAfter.UTC().Format(time.RFC3339)
	}
	return ""
}

// crls finds the revocation lists of an issuer. It reports whether a current one
// was found, and fails for one that is damaged, stale or names the certificate.
func (c *Collateral) revoked(cert, issuer *x509.Certificate, now time.Time, field string) (checked bool, err error) {
	var stale error
	for _, l := range c.CRLs {
		if !bytes.Equal(l.RawIssuer, issuer.RawSubject) {
			continue
		}
		if len(l.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(l.AuthorityKeyId, issuer.SubjectKeyId) {
			continue
		}
		if err := l.CheckSignatureFrom(issuer); err != nil {
			return false, bad(field, "revocation list of %s: signature does not verify", issuer.Subject.CommonName)
		}
		for _, r := range l.RevokedCertificateEntries {
			if r.SerialNumber.Cmp(cert.SerialNumber) == 0 && !r.RevocationTime.After(now) {
				return false, bad(field, "certificate %s, serial %x, was revoked on %s", cert.Subject.CommonName, cert.SerialNumber, r.RevocationTime.UTC().Format(time.RFC3339))
			}
		}
		switch {
		case now.Before(l.ThisUpdate):
			stale = bad(field, "revocation list of %s is not valid before %s", issuer.Subject.CommonName, l.ThisUpdate.UTC().Format(time.RFC3339))
		case !l.NextUpdate.IsZero() && now.After(l.NextUpdate):
			stale = bad(field, "revocation list of %s expired on %s", issuer.Subject.CommonName, l.NextUpdate.UTC().Format(time.RFC3339))
		default:
			checked = true
		}
	}
	if checked {
		return true, nil
	}
	return false, stale
}
