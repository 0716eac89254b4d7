// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"strings"
	"time"
)

// pck is a verified PCK certificate: the platform that signed the QE's report.
type pck struct {
	key    *ecdsa.PublicKey
	ppid   []byte
	fmspc  [6]byte
	pceID  [2]byte
	cpu    [16]int
	pceSVN int

	missing []string // revocation lists
}

const (
	chainField = "pck_certification_data"
	pckSubject = "Intel SGX PCK Certificate"
)

// pckChain verifies the chain in a quote: leaf, intermediate and root in PEM, in
// any order behind the leaf.
func (c *Collateral) pckChain(data []byte, now time.Time) (*pck, error) {
	certs, err := chainCertificates(data)
	if err != nil {
		return nil, err
	}
	if len(certs) != 3 {
		return nil, bad(chainField, "holds %d certificates, want 3: PCK, its CA, root", len(certs))
	}
	leaf, ca, root := certs[0], certs[1], certs[2]
	if isIntelRoot(ca) {
		ca, root = root, ca
	}
	return c.verifyPCK(leaf, ca, root, now)
}

// chainCertificates reads certificates in PEM, or in DER one behind the other.
func chainCertificates(data []byte) (certs []*x509.Certificate, err error) {
	if len(data) > 0 && data[0] == 0x30 {
		if certs, err = x509.ParseCertificates(data); err != nil {
			return nil, bad(chainField, "certificates in DER cannot be read: %v", err)
		}
		return certs, nil
	}
	ders, err := strictPEM(data)
	if err != nil {
		return nil, err
	}
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, bad(chainField, "certificate %d cannot be read: %v", i+1, err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// verifyPCK verifies a PCK certificate up to Intel's root.
func (c *Collateral) verifyPCK(leaf, ca, root *x509.Certificate, now time.Time) (*pck, error) {
	// Intel issued the root's certificate more than once; the key is what counts.
	if !isIntelRoot(root) || root.CheckSignatureFrom(root) != nil {
		return nil, bad(chainField, "the root is not Intel's")
	}
	if err := linked(leaf, ca, chainField, now); err != nil {
		return nil, err
	}
	if err := linked(ca, root, chainField, now); err != nil {
		return nil, err
	}
	if reason := validAt(root, now); reason != "" {
		return nil, bad(chainField, "certificate %s %s", root.Subject.CommonName, reason)
	}
	if leaf.Subject.CommonName != pckSubject || leaf.IsCA {
		return nil, bad(chainField, "the first certificate is for %q, not a PCK certificate", leaf.Subject.CommonName)
	}
	p, err := pckExtensions(leaf)
	if err != nil {
		return nil, err
	}
	for _, x := range []struct {
		cert, issuer *x509.Certificate
		name         string
	}{{leaf, ca, "pck_crl"}, {ca, root, "root_ca_crl"}} {
		checked, err := c.revoked(x.cert, x.issuer, now, "collateral."+x.name)
		if err != nil {
			return nil, err
		}
		if !checked {
			p.missing = append(p.missing, x.name)
		}
	}
	return p, nil
}

// pckLookup finds the certificate of a platform that a quote names without giving
// it: the one in the collateral whose key signed the quoting enclave's report.
// Every byte of the name that anything can vouch for is compared with it.
// Source: Intel SGX ECDSA QuoteLibReference, "QE certification data" types 1 to 4.
func (c *Collateral) pckLookup(q *quote, allowEncrypted bool, now time.Time) (*pck, error) {
	certs := c.Certificates
	ppid := map[uint16]int{certPPID: 16, certPPID2048: 256, certPPID3072: 384}[q.certType]
	switch {
	case q.certType == certPCKLeaf:
		ders, err := strictPEM(q.certData)
		if err != nil {
			return nil, err
		}
		if len(ders) != 1 {
			return nil, bad(chainField, "holds %d certificates, want 1", len(ders))
		}
		leaf, err := x509.ParseCertificate(ders[0])
		if err != nil {
			return nil, bad(chainField, "certificate 1 cannot be read: %v", err)
		}
		certs = append([]*x509.Certificate{leaf}, certs...)
	case ppid == 0:
		return nil, bad(chainField+".type", "is %d, known are 1 to 5", q.certType)
	case len(q.certData) != ppid+20:
		return nil, bad(chainField+".size", "is %d, want %d", len(q.certData), ppid+20)
	}
	for _, leaf := range certs {
		key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
		if !ok || leaf.Subject.CommonName != pckSubject || !verifyP256(key, q.qeReport, q.qeSig) {
			continue
		}
		ca := c.find(leaf.Issuer.CommonName, leaf.RawIssuer)
		if ca == nil {
			return nil, bad("collateral.pck_chain", "no certificate of %s, which issued the PCK certificate", leaf.Issuer.CommonName)
		}
		p, err := c.verifyPCK(leaf, ca, intelRoot(), now)
		if err != nil || q.certType == certPCKLeaf {
			return p, err
		}
		return p, q.checkName(p, ppid, allowEncrypted)
	}
	if q.certType == certPCKLeaf {
		return nil, bad("qe_report_signature", "does not verify under the PCK certificate's key")
	}
	return nil, bad(chainField+".type", "is %d: the quote names its platform without a certificate, and the collateral has no PCK certificate whose key signed it", q.certType)
}

// checkName compares the name of a platform in a quote with its certificate.
func (q *quote) checkName(p *pck, ppid int, allowEncrypted bool) error {
	r := &reader{b: q.certData}
	if id := r.take(chainField+".ppid", ppid); q.certType == certPPID {
		if !bytes.Equal(id, p.ppid) {
			return bad(chainField+".ppid", "is %x, the PCK certificate is for %x", id, p.ppid)
		}
	} else if !allowEncrypted {
		return bad(chainField+".type", "is %d: nothing vouches for the encrypted PPID's bytes, and this was not allowed", q.certType)
	}
	if svn := r.take(chainField+".cpu_svn", 16); !bytes.Equal(svn, q.qeReport[:16]) {
		return bad(chainField+".cpu_svn", "is %x, the quoting enclave ran on %x", svn, q.qeReport[:16])
	}
	want := p.pceSVN
	if q.version == 3 {
		want = int(le.Uint16(q.signed[10:]))
	}
	if svn := r.u16(chainField + ".pce_svn"); int(svn) != want {
		return bad(chainField+".pce_svn", "is %d, want %d", svn, want)
	}
	if id := r.take(chainField+".pce_id", 2); !bytes.Equal(id, p.pceID[:]) {
		return bad(chainField+".pce_id", "is %x, the PCK certificate is for %x", id, p.pceID)
	}
	return r.err
}

// find finds a CA's certificate.
func (c *Collateral) find(name string, subject []byte) *x509.Certificate {
	for _, x := range c.Certificates {
		if x.IsCA && x.Subject.CommonName == name && bytes.Equal(x.RawSubject, subject) {
			return x
		}
	}
	return nil
}

func isIntelRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubjectPublicKeyInfo, intelRoot().RawSubjectPublicKeyInfo) && bytes.Equal(c.RawSubject, intelRoot().RawSubject)
}

// strictPEM takes certificates from a text in which no byte is free: the markers,
// base64 in lines of one length, one kind of line end, a final line end or not, and a
// final zero byte or not.
func strictPEM(data []byte) ([][]byte, error) {
	text := string(bytes.TrimSuffix(data, []byte{0}))
	if strings.Contains(text, "\x01") {
		return nil, bad(chainField, "holds something beside the certificates")
	}
	// Some quoting libraries put certificates behind each other without a line end.
	text = strings.ReplaceAll(text, "-----END CERTIFICATE----------BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----\x01-----BEGIN CERTIFICATE-----")
	end := "\n"
	if strings.Contains(text, "\r\n") {
		end = "\r\n"
	}
	lines := strings.Split(strings.ReplaceAll(strings.TrimSuffix(text, end), "\x01", end), end)
	var out [][]byte
	var body []string
	inside := false
	for _, line := range lines {
		switch {
		case !inside && line == "-----BEGIN CERTIFICATE-----":
			inside, body = true, nil
		case inside && line == "-----END CERTIFICATE-----":
			for i, l := range body {
				if i < len(body)-1 && len(l) != len(body[0]) || len(l) > len(body[0]) {
					return nil, bad(chainField, "certificate %d is not in lines of one length", len(out)+1)
				}
			}
			der, err := base64.StdEncoding.Strict().DecodeString(strings.Join(body, ""))
			if err != nil {
				return nil, bad(chainField, "certificate %d is not base64", len(out)+1)
			}
			out, inside = append(out, der), false
		case inside && line != "" && !strings.ContainsAny(line, "\r\n"):
			body = append(body, line)
		default:
			return nil, bad(chainField, "holds something beside the certificates")
		}
	}
	if inside {
		return nil, bad(chainField, "certificate %d has no end", len(out)+1)
	}
	return out, nil
}

// linked checks one step of a chain.
func linked(cert, issuer *x509.Certificate, field string, now time.Time) error {
	if reason := validAt(cert, now); reason != "" {
		return bad(field, "certificate %s %s", cert.Subject.CommonName, reason)
	}
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return bad(field, "certificate %s was not issued by %s", cert.Subject.CommonName, issuer.Subject.CommonName)
	}
	if err := cert.CheckSignatureFrom(issuer); err != nil {
		return bad(field, "signature of certificate %s does not verify", cert.Subject.CommonName)
	}
	return nil
}

var oidSGX = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}

// pckExtensions reads Intel's SGX extension.
// Source: Intel SGX PCK certificate and CRL profile specification, section 1.3.5.
func pckExtensions(leaf *x509.Certificate) (*pck, error) {
	const field = chainField + ".sgx_extensions"
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, bad(chainField, "the PCK certificate's key is not one of P-256")
	}
	p := &pck{key: key}
	seen := map[int]bool{}
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(oidSGX) {
			continue
		}
		var list []asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &list); err != nil || len(rest) > 0 {
			return nil, bad(field, "cannot be read")
		}
		for _, item := range list {
			var pair struct {
				ID    asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			if _, err := asn1.Unmarshal(item.FullBytes, &pair); err != nil {
				return nil, bad(field, "cannot be read")
			}
			if len(pair.ID) != len(oidSGX)+1 || !pair.ID[:len(oidSGX)].Equal(oidSGX) {
				continue
			}
			n := pair.ID[len(oidSGX)]
			if seen[n] {
				return nil, bad(field, "has entry %d twice", n)
			}
			seen[n] = true
			ok := true
			switch n {
			case 1:
				p.ppid, ok = pair.Value.Bytes, len(pair.Value.Bytes) == 16
			case 2:
				ok = p.tcb(pair.Value.FullBytes)
			case 3:
				ok = copy(p.pceID[:], pair.Value.Bytes) == 2 && len(pair.Value.Bytes) == 2
			case 4:
				ok = copy(p.fmspc[:], pair.Value.Bytes) == 6 && len(pair.Value.Bytes) == 6
			}
			if !ok {
				return nil, bad(field, "entry %d cannot be read", n)
			}
		}
	}
	for n, name := range []string{1: "PPID", 2: "TCB", 3: "PCE-ID", 4: "FMSPC"} {
		if name != "" && !seen[n] {
			return nil, bad(field, "has no %s", name)
		}
	}
	return p, nil
}

// tcb reads the platform's patch levels: sixteen components and the PCE's.
func (p *pck) tcb(b []byte) bool {
	var list []asn1.RawValue
	if _, err := asn1.Unmarshal(b, &list); err != nil {
		return false
	}
	seen := 0
	for _, item := range list {
		var pair struct {
			ID    asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		if _, err := asn1.Unmarshal(item.FullBytes, &pair); err != nil || len(pair.ID) != len(oidSGX)+2 {
			return false
		}
		switch n := pair.ID[len(oidSGX)+1]; {
		case n >= 1 && n <= 17:
			var v int
			if _, err := asn1.Unmarshal(pair.Value.FullBytes, &v); err != nil || v < 0 {
				return false
			}
			if n == 17 {
				p.pceSVN = v
			} else {
				p.cpu[n-1] = v
			}
			seen++
		case n == 18: // CPUSVN, the same in raw form
		default:
			return false
		}
	}
	return seen == 17
}
