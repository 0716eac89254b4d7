// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/x509"
	_ "embed" // the vendors' roots
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"slices"
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
// service as JSON (alone, printed anew, or with others and their issuer chains in
// one object), certificates and revocation lists in PEM, DER, hexadecimal or
// base64, an issuer chain as it comes in an HTTP header, a whole HTTP response, the
// certificate table of an SNP host. It reports false when it is none of these.
func (c *Collateral) Add(name string, data []byte) bool { return c.add(name, data, 0) }

// maxNesting bounds documents within documents.
const maxNesting = 6

func (c *Collateral) add(name string, data []byte, depth int) bool {
	trimmed := bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if len(trimmed) == 0 || depth > maxNesting || isQuote(data) {
		return false
	}
	if bytes.HasPrefix(trimmed, []byte("HTTP/")) {
		return c.addResponse(name, trimmed, depth)
	}
	if trimmed[0] == '{' {
		return c.addJSON(name, trimmed, depth)
	}
	if trimmed[0] == '[' {
		return c.addValue(name, trimmed, depth)
	}
	text := bytes.Count(data, []byte{0}) < 8
	found := text && c.addEncoded(name, trimmed, depth)
	read := 0
	for rest := data; text; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if c.addDER(block.Bytes) {
			read++
		}
	}
	// A file of which something cannot be read is damaged as a whole: what is missing
	// might be what counts.
	for _, kind := range []string{"BEGIN", "END"} {
		if text && bytes.Count(data, []byte(kind+" CERTIFICATE-----"))+bytes.Count(data, []byte(kind+" X509 CRL-----")) > read {
			c.Damaged = append(c.Damaged, Damage{name, "holds certificates or revocation lists that cannot be read"})
			return true
		}
	}
	if found || read > 0 {
		return true
	}
	if c.addDER(data) || c.addTable(name, data) {
		return true
	}
	if b, ok := unarmoured(trimmed); ok {
		return c.addDER(b) || bytes.HasPrefix(b, []byte("-----BEGIN ")) && c.add(name, b, depth+1)
	}
	return false
}

// addResponse takes an HTTP response as it came: the chain is in the header.
func (c *Collateral) addResponse(name string, b []byte, depth int) bool {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	head, body, _ := bytes.Cut(b, []byte("\n\n"))
	found := c.addEncoded(name, head, depth)
	return c.add(name, body, depth+1) || found
}

// addEncoded takes percent-encoded chains out of a text, such as a list of HTTP headers.
func (c *Collateral) addEncoded(name string, text []byte, depth int) bool {
	found := false
	for word := range strings.FieldsSeq(string(text)) {
		i := strings.Index(word, "-----BEGIN%20")
		unescape := url.PathUnescape
		if i < 0 {
			i, unescape = strings.Index(word, "-----BEGIN+"), url.QueryUnescape
		}
		if i < 0 {
			continue
		}
		if s, err := unescape(word[i:]); err == nil && !strings.Contains(s, "-----BEGIN%20") {
			found = c.add(name, []byte(s), depth+1) || found
		}
	}
	return found
}

// addTable takes the certificate table that an SNP host gives its guests, as
// configfs-tsm has it in a file of its own.
func (c *Collateral) addTable(name string, b []byte) bool {
	if len(b) < 48 || !slices.Contains(snpTableIDs, hex.EncodeToString(b[:16])) {
		return false
	}
	list, err := certTable(b)
	if err != nil {
		c.Damaged = append(c.Damaged, Damage{name, err.Error()})
		return true
	}
	c.Certificates = append(c.Certificates, list...)
	return true
}

// unarmoured decodes hexadecimal and base64, in lines or not.
func unarmoured(text []byte) ([]byte, bool) {
	s := strings.Join(strings.Fields(string(text)), "")
	if b, err := hex.DecodeString(strings.TrimPrefix(s, "0x")); err == nil {
		return b, true
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(s); err == nil {
			return b, true
		}
	}
	return nil, false
}

func (c *Collateral) addDER(b []byte) bool {
	if certs, err := x509.ParseCertificates(b); err == nil && len(certs) > 0 {
		c.Certificates = append(c.Certificates, certs...)
		return true
	}
	if crl, err := x509.ParseRevocationList(b); err == nil {
		c.CRLs = append(c.CRLs, crl)
		return true
	}
	return false
}

func (c *Collateral) addJSON(name string, b []byte, depth int) bool {
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
	done := map[string]bool{}
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
		// With its signature beside it; without one it may be the name of a whole document.
		if body := doc[d.key]; len(body) > 0 && body[0] == '{' && (doc["signature"] != nil || !bytes.Contains(body, []byte(`"signature"`))) {
			add(d.list, body, doc["signature"])
			done[d.key] = true
		}
		for _, k := range d.strings {
			if s := str(k[0]); s != "" && doc[k[1]] != nil {
				add(d.list, []byte(s), doc[k[1]])
				done[k[0]], done[k[1]] = true, true
			}
		}
	}
	// Chains, revocation lists and other documents in one object with the rest, as
	// quote verification libraries pass them on.
	for _, key := range slices.Sorted(maps.Keys(doc)) {
		if !done[key] {
			found = c.addValue(name+"."+key, doc[key], depth) || found
		}
	}
	if !found && depth == 0 && (bytes.Contains(b, []byte(`cbLevel`)) || bytes.Contains(b, []byte(`tcbSt`))) {
		c.Damaged = append(c.Damaged, Damage{name, "is neither TCB info nor an enclave identity"})
		found = true
	}
	return found
}

// addValue takes what is in a JSON value: a document, text, bytes as a list of
// numbers, or a list of these.
func (c *Collateral) addValue(name string, raw []byte, depth int) bool {
	if depth >= maxNesting || len(raw) < 64 {
		return false // too short for anything
	}
	switch raw[0] {
	case '{':
		return c.addJSON(name, raw, depth+1)
	case '"':
		var s string
		return json.Unmarshal(raw, &s) == nil && c.add(name, []byte(s), depth+1)
	case '[':
		if b, ok := numbers(raw); ok {
			return c.add(name, b, depth+1)
		}
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			return false
		}
		found := false
		for i, x := range list {
			found = c.addValue(fmt.Sprintf("%s[%d]", name, i), x, depth+1) || found
		}
		return found
	}
	return false
}

// numbers reads bytes as a list of numbers.
func numbers(raw []byte) ([]byte, bool) {
	var wide []uint16
	if json.Unmarshal(raw, &wide) != nil {
		return nil, false
	}
	b := make([]byte, len(wide))
	for i, n := range wide {
		if n > 255 {
			return nil, false
		}
		b[i] = uint8(n)
	}
	return b, true
}

// signature reads r ‖ s in hexadecimal, or bytes as a list of numbers: r ‖ s or
// the ASN.1 form.
func signature(raw json.RawMessage) ([]byte, bool) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		b, err := hex.DecodeString(text)
		return b, err == nil && len(b) == 64
	}
	list, ok := numbers(raw)
	if !ok {
		return nil, false
	}
	if len(list) == 64 {
		return list, true
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(list, &rs); err != nil || len(rest) > 0 || rs.R.Sign() < 0 || rs.S.Sign() < 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
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
