// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// Made-up vendors: their roots take the place of the real ones in the test, so
// that every form and verdict can be produced.

var testNow = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

func ecKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func issue(t *testing.T, name string, key crypto.PublicKey, issuer *x509.Certificate, signer crypto.Signer, ca bool, alg x509.SignatureAlgorithm, ext ...pkix.Extension) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: testNow.AddDate(-1, 0, 0), NotAfter: testNow.AddDate(1, 0, 0),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		ExtraExtensions: ext, SignatureAlgorithm: alg,
	}
	if issuer == nil {
		issuer = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, key, signer)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// intel is a made-up Intel.
type intel struct {
	t                              *testing.T
	rootKey, caKey, pckKey, tcbKey *ecdsa.PrivateKey
	root, ca, pck, tcb             *x509.Certificate
	attKey                         *ecdsa.PrivateKey
	qeMRSIGNER                     [32]byte
	tcbInfo, qeIdentity            map[string]any
	crlCA, crlRoot                 []byte
	certType                       uint16 // of the certification data; 0: the chain
	certData                       []byte
}

func sgxExtension(t *testing.T, fmspc []byte, svn [16]int, pce int) pkix.Extension {
	type pair struct {
		ID    asn1.ObjectIdentifier
		Value any
	}
	id := func(n ...int) asn1.ObjectIdentifier { return append(slices.Clone(oidSGX), n...) }
	var tcb []pair
	for i, s := range svn {
		tcb = append(tcb, pair{id(2, i+1), s})
	}
	tcb = append(tcb, pair{id(2, 17), pce}, pair{id(2, 18), make([]byte, 16)})
	seq := func(list []pair) asn1.RawValue {
		var b []byte
		for _, p := range list {
			if raw, ok := p.Value.(asn1.RawValue); ok {
				p.Value = raw
			}
			b = append(b, marshal(t, p)...)
		}
		return asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: b}
	}
	all := seq([]pair{{id(1), []byte("ppid of 16 bytes")}, {id(2), seq(tcb)}, {id(3), []byte{0, 0}}, {id(4), fmspc}, {id(5), asn1.Enumerated(0)}})
	return pkix.Extension{Id: oidSGX, Value: marshal(t, all)}
}

func newIntel(t *testing.T, tee TEE) *intel {
	t.Helper()
	v := &intel{t: t, rootKey: ecKey(t, elliptic.P256()), caKey: ecKey(t, elliptic.P256()), pckKey: ecKey(t, elliptic.P256()), tcbKey: ecKey(t, elliptic.P256()), attKey: ecKey(t, elliptic.P256())}
	alg := x509.ECDSAWithSHA256
	v.root = issue(t, "Intel SGX Root CA", v.rootKey.Public(), nil, v.rootKey, true, alg)
	v.ca = issue(t, "Intel SGX PCK Platform CA", v.caKey.Public(), v.root, v.rootKey, true, alg)
	svn := [16]int{5, 5, 5, 5, 5, 5, 5, 5, 0, 0, 0, 0, 0, 0, 0, 0}
	v.pck = issue(t, "Intel SGX PCK Certificate", v.pckKey.Public(), v.ca, v.caKey, false, alg, sgxExtension(t, []byte{1, 2, 3, 4, 5, 6}, svn, 11))
	v.tcb = issue(t, tcbSigner, v.tcbKey.Public(), v.root, v.rootKey, false, alg)
	v.qeMRSIGNER = sha256.Sum256([]byte("qe"))
	old := intelRoot
	intelRoot = func() *x509.Certificate { return v.root }
	t.Cleanup(func() { intelRoot = old })

	level := func(svn, tdx, pce int, status string) map[string]any {
		l := map[string]any{"pcesvn": pce}
		comps := func(n, from int) []any {
			out := make([]any, 16)
			for i := range out {
				out[i] = map[string]any{"svn": 0}
				if i >= from && i < 8 {
					out[i] = map[string]any{"svn": n}
				}
			}
			return out
		}
		l["sgxtcbcomponents"] = comps(svn, 0)
		if tee == TDX {
			tdxComps := comps(tdx, 0)
			tdxComps[1] = map[string]any{"svn": 0} // the module's version
			l["tdxtcbcomponents"] = tdxComps
		}
		return map[string]any{"tcb": l, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status, "advisoryIDs": []string{"INTEL-SA-" + status}}
	}
	v.tcbInfo = map[string]any{
		"id": strings.ToUpper(string(tee)), "version": 3, "issueDate": "2026-05-20T00:00:00Z", "nextUpdate": "2026-06-20T00:00:00Z", "fmspc": "010203040506",
		"pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 20,
		"tcbLevels": []any{level(5, 5, 11, UpToDate), level(4, 4, 11, SWHardeningNeeded), level(3, 3, 10, OutOfDate)},
	}
	zeros := strings.Repeat("00", 48)
	module := map[string]any{"mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF"}
	v.tcbInfo["tdxModule"] = module
	v.tcbInfo["tdxModuleIdentities"] = []any{map[string]any{
		"id": "TDX_01", "mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF",
		"tcbLevels": []any{
			map[string]any{"tcb": map[string]any{"isvsvn": 5}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": UpToDate},
			map[string]any{"tcb": map[string]any{"isvsvn": 2}, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": OutOfDate},
		},
	}}
	v.qeIdentity = map[string]any{
		"id": map[TEE]string{SGX: "QE", TDX: "TD_QE"}[tee], "version": 2, "issueDate": "2026-05-20T00:00:00Z", "nextUpdate": "2026-06-20T00:00:00Z",
		"tcbEvaluationDataNumber": 20, "miscselect": "00000000", "miscselectMask": "FFFFFFFF", "attributes": "11000000000000000000000000000000",
		"attributesMask": "FBFFFFFFFFFFFFFF0000000000000000", "mrsigner": hex.EncodeToString(v.qeMRSIGNER[:]), "isvprodid": 2,
		"tcbLevels": []any{
			map[string]any{"tcb": map[string]any{"isvsvn": 8}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": UpToDate},
			map[string]any{"tcb": map[string]any{"isvsvn": 6}, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": OutOfDate},
		},
	}
	v.crlCA = v.crl(v.ca, v.caKey)
	v.crlRoot = v.crl(v.root, v.rootKey)
	return v
}

func (v *intel) crl(issuer *x509.Certificate, key *ecdsa.PrivateKey, revoked ...*x509.Certificate) []byte {
	v.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: testNow.AddDate(0, 0, -5), NextUpdate: testNow.AddDate(0, 0, 20)}
	for _, c := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: testNow.AddDate(0, 0, -6)})
	}
	b, err := x509.CreateRevocationList(rand.Reader, l, issuer, key)
	if err != nil {
		v.t.Fatal(err)
	}
	return b
}

func (v *intel) rs(key *ecdsa.PrivateKey, msg []byte) []byte {
	v.t.Helper()
	sum := sha256.Sum256(msg)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		v.t.Fatal(err)
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
}

func (v *intel) signed(name string, doc map[string]any) []byte {
	v.t.Helper()
	body, err := json.Marshal(doc)
	if err != nil {
		v.t.Fatal(err)
	}
	return fmt.Appendf(nil, `{%q:%s,"signature":"%x"}`, name, body, v.rs(v.tcbKey, body))
}

func (v *intel) collateral() Collateral {
	var c Collateral
	c.Add("tcb", v.signed("tcbInfo", v.tcbInfo))
	c.Add("qe", v.signed("enclaveIdentity", v.qeIdentity))
	c.Add("chain", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.tcb.Raw}))
	c.Add("crl", v.crlCA)
	c.Add("crl.hex", []byte(hex.EncodeToString(v.crlRoot)))
	return c
}

// quote makes a quote; edit changes the body before it is signed.
func (v *intel) quote(version uint16, tee TEE, size int, qeSVN uint16, edit func(body []byte)) []byte {
	v.t.Helper()
	pub, err := v.attKey.PublicKey.Bytes()
	if err != nil {
		v.t.Fatal(err)
	}
	key := pub[1:]
	auth := []byte("authentication data")
	qe := make([]byte, enclaveReport)
	qe[48] = 0x11
	copy(qe[128:], v.qeMRSIGNER[:])
	le.PutUint16(qe[256:], 2)
	le.PutUint16(qe[258:], qeSVN)
	sum := sha256.Sum256(append(slices.Clone(key), auth...))
	copy(qe[320:], sum[:])

	h := make([]byte, quoteHeaderSize)
	le.PutUint16(h, version)
	le.PutUint16(h[2:], attKeyECDSA256)
	if tee == TDX {
		le.PutUint32(h[4:], 0x81)
	}
	copy(h[12:], intelQE[:])
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(i)
	}
	if tee == SGX {
		body[48] = 5 // no debug
	} else {
		copy(body, []byte{5, 0, 5, 5, 5, 5, 5, 5, 0, 0, 0, 0, 0, 0, 0, 0})
		clear(body[64:136])
	}
	if edit != nil {
		edit(body)
	}
	q := h
	if version == 5 {
		q = le.AppendUint16(q, map[int]uint16{enclaveReport: 1, tdReport10: 2, tdReport15: 3}[size])
		q = le.AppendUint32(q, uint32(size))
	}
	q = append(q, body...)
	var chain []byte
	for _, c := range []*x509.Certificate{v.pck, v.ca, v.root} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	inner := append(slices.Clone(qe), v.rs(v.pckKey, qe)...)
	inner = append(le.AppendUint16(inner, uint16(len(auth))), auth...)
	kind := uint16(certPCKChain)
	if v.certType != 0 {
		kind, chain = v.certType, v.certData
	}
	inner = le.AppendUint32(le.AppendUint16(inner, kind), uint32(len(chain)))
	inner = append(inner, chain...)
	sig := append(v.rs(v.attKey, q), key...)
	if version >= 4 {
		sig = le.AppendUint32(le.AppendUint16(sig, certQEReport), uint32(len(inner)))
	}
	sig = append(sig, inner...)
	return append(le.AppendUint32(q, uint32(len(sig))), sig...)
}

// every is the step through the bytes of evidence, a longer one with -short.
func every(step, short int) int {
	if testing.Short() {
		return short
	}
	return step
}

func TestQuoteForms(t *testing.T) {
	for _, tt := range []struct {
		version uint16
		tee     TEE
		size    int
	}{
		{3, SGX, enclaveReport},
		{4, SGX, enclaveReport},
		{4, TDX, tdReport10},
		{5, SGX, enclaveReport},
		{5, TDX, tdReport10},
		{5, TDX, tdReport15},
	} {
		name := fmt.Sprintf("v%d %s %d", tt.version, tt.tee, tt.size)
		v := newIntel(t, tt.tee)
		b := v.quote(tt.version, tt.tee, tt.size, 8, nil)
		p := Policy{Collateral: v.collateral()}
		c, err := Verify(b, p, testNow)
		if err != nil || c.TEE != tt.tee || c.TCBStatus != UpToDate || len(c.Missing) != 0 || c.Platform != "010203040506" {
			t.Errorf("%s: %+v, %v", name, c, err)
			continue
		}
		if tt.size == tdReport15 && (c.TDX.MRSERVICETD == "" || c.TDX.TEETCBSVN2 == "") {
			t.Errorf("%s: no fields of TDX 1.5", name)
		}
		for i := 0; i < len(b); i += every(3, 53) {
			b[i] ^= 1 << (i % 8)
			if _, err := Verify(b, p, testNow); err == nil || len(Fields(err)) == 0 {
				t.Errorf("%s: byte %d flipped: %v", name, i, err)
			}
			b[i] ^= 1 << (i % 8)
		}
	}
}

func TestTCBVerdicts(t *testing.T) {
	svn := func(b ...byte) func([]byte) { return func(body []byte) { copy(body, b) } }
	for _, tt := range []struct {
		name   string
		tee    TEE
		qeSVN  uint16
		edit   func(v *intel)
		body   func([]byte)
		policy func(*Policy)
		field  string // "": accepted
		status string
	}{
		{name: "good", tee: SGX, qeSVN: 8, status: UpToDate},
		{name: "good", tee: TDX, qeSVN: 8, status: UpToDate},
		{name: "old QE", tee: SGX, qeSVN: 6, field: "tcb_status"},
		{name: "old QE accepted", tee: SGX, qeSVN: 6, policy: func(p *Policy) { p.AcceptTCB = []string{OutOfDate} }, status: OutOfDate},
		{name: "ancient QE", tee: SGX, qeSVN: 1, field: "qe_report.isv_svn"},
		{name: "other QE", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.qeMRSIGNER[0] ^= 1 }, field: "qe_report.mr_signer"},
		{name: "QE product", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.qeIdentity["isvprodid"] = 1 }, field: "qe_report.isv_prod_id"},
		{name: "QE attributes", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.qeIdentity["attributes"] = "15000000000000000000000000000000" }, field: "qe_report.attributes"},
		{name: "TDX below", tee: TDX, qeSVN: 8, body: svn(4, 0, 4), status: SWHardeningNeeded},
		{name: "TDX out of date", tee: TDX, qeSVN: 8, body: svn(3, 0, 3), field: "tcb_status"},
		{name: "TDX unknown", tee: TDX, qeSVN: 8, body: svn(1, 0, 1), field: "tcb_status"},
		{name: "module 1", tee: TDX, qeSVN: 8, body: svn(7, 1), status: UpToDate},
		{name: "module 1 old", tee: TDX, qeSVN: 8, body: svn(3, 1), field: "tcb_status"},
		{name: "module 1 ancient", tee: TDX, qeSVN: 8, body: svn(1, 1), field: "tcb_status"},
		{name: "module 2", tee: TDX, qeSVN: 8, body: svn(7, 2), field: "body.tee_tcb_svn"},
		{name: "module signer", tee: TDX, qeSVN: 8, body: func(b []byte) { b[64] = 1 }, field: "body.mr_signer_seam"},
		{name: "module attributes", tee: TDX, qeSVN: 8, body: func(b []byte) { b[112] = 1 }, field: "body.seam_attributes"},
		{name: "debug", tee: TDX, qeSVN: 8, body: func(b []byte) { b[120] = 1 }, field: "debug"},
		{name: "debug", tee: SGX, qeSVN: 8, body: func(b []byte) { b[48] = 7 }, field: "debug"},
		{name: "revoked level", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.tcbInfo["tcbLevels"].([]any)[0].(map[string]any)["tcbStatus"] = Revoked }, field: "tcb_status"},
		{name: "unheard-of status", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.tcbInfo["tcbLevels"].([]any)[0].(map[string]any)["tcbStatus"] = "Fine" }, field: "tcb_status"},
		{name: "another platform", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.tcbInfo["fmspc"] = "999999999999" }, field: "collateral.tcb_info"},
		{name: "another platform, missing allowed", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.tcbInfo["fmspc"] = "999999999999" }, policy: func(p *Policy) { p.AllowMissingCollateral = true }, status: NotEvaluated},
		{name: "not yet", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.tcbInfo["issueDate"] = "2026-06-02T00:00:00Z" }, field: "collateral.tcb_info"},
		{name: "expired", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.qeIdentity["nextUpdate"] = "2026-05-31T00:00:00Z" }, field: "collateral.qe_identity"},
		{name: "low number", tee: SGX, qeSVN: 8, policy: func(p *Policy) { p.MinTCBNumber = 21 }, field: "collateral.tcb_info"},
		{name: "strange version", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.tcbInfo["version"] = 9 }, field: "collateral.tcb_info"},
		{name: "PCK revoked", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.crlCA = v.crl(v.ca, v.caKey, v.pck) }, field: "collateral.pck_crl"},
		{name: "CA revoked", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.crlRoot = v.crl(v.root, v.rootKey, v.ca) }, field: "collateral.root_ca_crl"},
		{name: "TCB signer revoked", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.crlRoot = v.crl(v.root, v.rootKey, v.tcb) }, field: "collateral.root_ca_crl"},
		{name: "forged CRL", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.crlCA = v.crl(v.ca, v.pckKey) }, field: "collateral.pck_crl"},
		{name: "forged TCB info", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.tcbKey = ecKey(v.t, elliptic.P256()) }, field: "collateral.tcb_info"},
		{name: "forged PCK", tee: SGX, qeSVN: 8, edit: func(v *intel) { v.pckKey = ecKey(v.t, elliptic.P256()) }, field: "qe_report_signature"},
		{name: "forged root", tee: SGX, qeSVN: 8, edit: func(v *intel) {
			k := ecKey(v.t, elliptic.P256())
			v.root = issue(v.t, "Intel SGX Root CA", k.Public(), nil, k, true, x509.ECDSAWithSHA256)
		}, field: "pck_certification_data"},
	} {
		v := newIntel(t, tt.tee)
		if tt.edit != nil {
			tt.edit(v)
		}
		size := map[TEE]int{SGX: enclaveReport, TDX: tdReport10}[tt.tee]
		b := v.quote(4, tt.tee, size, tt.qeSVN, tt.body)
		p := Policy{Collateral: v.collateral()}
		if tt.policy != nil {
			tt.policy(&p)
		}
		c, err := Verify(b, p, testNow)
		switch {
		case tt.field == "" && (err != nil || c.TCBStatus != tt.status):
			t.Errorf("%s (%s): %s, %v; want %s", tt.name, tt.tee, c.TCBStatus, err, tt.status)
		case tt.field != "" && !slices.ContainsFunc(Fields(err), func(f string) bool { return strings.HasPrefix(f, tt.field) }):
			t.Errorf("%s (%s): %v, want an error about %s", tt.name, tt.tee, err, tt.field)
		}
	}
}

// TestCollateralForms gives the same collateral in the forms that it comes in.
func TestCollateralForms(t *testing.T) {
	v := newIntel(t, SGX)
	q := v.quote(3, SGX, enclaveReport, 8, nil)
	body := func(m map[string]any) string { b, _ := json.Marshal(m); return string(b) }
	tcb, qe := body(v.tcbInfo), body(v.qeIdentity)
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.tcb.Raw}))
	object := func(m map[string]any) []byte { b, _ := json.Marshal(m); return b }
	der := func(raw []byte) []int {
		rs := struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])}
		var out []int
		for _, b := range marshal(t, rs) {
			out = append(out, int(b))
		}
		return out
	}
	// The first form of TCB info has one key a component.
	v2 := map[string]any{}
	for k, x := range v.tcbInfo {
		if !strings.HasPrefix(k, "tdx") && k != "id" {
			v2[k] = x
		}
	}
	v2["version"] = 2
	old := map[string]any{"pcesvn": 11}
	for i := range 16 {
		old[fmt.Sprintf("sgxtcbcomp%02dsvn", i+1)] = 0
	}
	v2["tcbLevels"] = []any{map[string]any{"tcb": old, "tcbStatus": SWHardeningNeeded, "tcbDate": "2026-01-01T00:00:00Z"}}
	for _, tt := range []struct {
		name  string
		files [][]byte
		want  string
	}{
		{"one object", [][]byte{object(map[string]any{
			"tcb_info": tcb, "tcb_info_signature": hex.EncodeToString(v.rs(v.tcbKey, []byte(tcb))), "qe_identity": qe, "qe_identity_signature": hex.EncodeToString(v.rs(v.tcbKey, []byte(qe))),
			"tcb_info_issuer_chain": chain, "root_ca_crl": hex.EncodeToString(v.crlRoot), "pck_crl": hex.EncodeToString(v.crlCA),
		})}, UpToDate},
		{"lists of bytes", [][]byte{
			object(map[string]any{"raw_tcb_info": tcb, "signature": der(v.rs(v.tcbKey, []byte(tcb))), "ca_chain": []string{chain}}),
			object(map[string]any{"raw_enclave_identity": qe, "signature": der(v.rs(v.tcbKey, []byte(qe)))}),
			v.crlRoot, v.crlCA,
		}, UpToDate},
		{"version 2, chain as in a header", [][]byte{
			v.signed("tcbInfo", v2), v.signed("enclaveIdentity", v.qeIdentity), []byte(strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B").Replace(chain)),
			pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: v.crlRoot}), v.crlCA,
		}, SWHardeningNeeded},
	} {
		var p Policy
		for i, f := range tt.files {
			if !p.Collateral.Add(fmt.Sprintf("%s %d", tt.name, i), f) {
				t.Errorf("%s: file %d is not known as collateral", tt.name, i)
			}
		}
		if c, err := Verify(q, p, testNow); err != nil || c.TCBStatus != tt.want || len(c.Missing) > 0 {
			t.Errorf("%s: %+v, %v", tt.name, c, err)
		}
	}
	for name, file := range map[string]string{
		"damaged JSON":   `{"tcbInfo":{"tcbLevels":[`,
		"renamed":        `{"tcbInfp":{"tcbLevels":[]},"signature":""}`,
		"no signature":   `{"tcbInfo":{"tcbLevels":[]}}`,
		"wide signature": `{"tcbInfo":{"tcbLevels":[]},"signature":[256]}`,
		"damaged PEM":    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		p := Policy{AllowMissingCollateral: true, Collateral: Collateral{Certificates: []*x509.Certificate{v.tcb}}}
		p.Collateral.Add(name, []byte(file))
		if _, err := Verify(q, p, testNow); err == nil || !strings.HasPrefix(Fields(err)[0], "collateral") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStrictPEM(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString(make([]byte, 90))
	text := func(width int, end string) string {
		s := "-----BEGIN CERTIFICATE-----" + end
		for i := 0; i < len(b64); i += width {
			s += b64[i:min(len(b64), i+width)] + end
		}
		return s + "-----END CERTIFICATE-----" + end
	}
	for _, good := range []string{text(64, "\n"), text(76, "\n"), text(64, "\r\n"), text(64, "\n") + "\x00", strings.TrimSuffix(text(76, "\n"), "\n"), text(64, "\n") + text(64, "\n"), strings.TrimSuffix(text(64, "\n"), "\n") + text(64, "\n")} {
		if _, err := strictPEM([]byte(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{" " + text(64, "\n"), strings.TrimSuffix(text(64, "\n"), "\n") + "\x01" + text(64, "\n"), text(64, "\n") + "\n", text(64, "\n") + "x", text(64, "\n") + "\x00\x00", strings.Replace(text(64, "\n"), "\n", "\r\n", 1), text(64, "\n")[:80]} {
		if _, err := strictPEM([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// amd makes an endorsement key under a made-up AMD.
func amd(t *testing.T, product, kind string, tcb SNPTCB, hwid []byte) (*ecdsa.PrivateKey, []*x509.Certificate) {
	t.Helper()
	rsaKey := func() *rsa.PrivateKey {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	arkKey, askKey, key := rsaKey(), rsaKey(), ecKey(t, elliptic.P384())
	alg := x509.SHA384WithRSAPSS
	ark := issue(t, "ARK-"+product, arkKey.Public(), nil, arkKey, true, alg)
	name := "SEV-" + product
	if kind == "VLEK" {
		name = "SEV-VLEK-" + product
	}
	ask := issue(t, name, askKey.Public(), ark, arkKey, true, alg)
	ext := func(value []byte, n ...int) pkix.Extension {
		return pkix.Extension{Id: append(slices.Clone(oidAMD), n...), Value: value}
	}
	stepping := product + "-B0"
	if kind == "VLEK" {
		stepping = product
	}
	list := []pkix.Extension{
		ext(marshal(t, asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(stepping)}), 2),
		ext(marshal(t, int(tcb.Bootloader)), 3, 1), ext(marshal(t, int(tcb.TEE)), 3, 2), ext(marshal(t, int(tcb.SNP)), 3, 3), ext(marshal(t, int(tcb.Microcode)), 3, 8),
	}
	if product == "Turin" {
		list = append(list, ext(marshal(t, int(tcb.FMC)), 3, 9))
	}
	if kind == "VCEK" {
		list = append(list, ext(hwid, 4))
	} else {
		list = append(list, ext(marshal(t, asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte("csp.example")}), 5))
	}
	leaf := issue(t, "SEV-"+kind, key.Public(), ask, askKey, false, alg, list...)
	old := amdCerts
	amdCerts = func() []*x509.Certificate { return []*x509.Certificate{ark} }
	t.Cleanup(func() { amdCerts = old })
	return key, []*x509.Certificate{leaf, ask}
}

func snpReport(t *testing.T, key *ecdsa.PrivateKey, version uint32, kind, product string, tcb SNPTCB, chip []byte) []byte {
	t.Helper()
	r := make([]byte, snpReportSize)
	le.PutUint32(r, version)
	le.PutUint64(r[8:], 0x30000)
	le.PutUint32(r[0x34:], 1)
	if kind == "VLEK" {
		r[0x48] = 1 << 2
	}
	copy(r[0x90:], "measurement")
	put := func(off int) {
		if product == "Turin" {
			copy(r[off:], []byte{tcb.FMC, tcb.Bootloader, tcb.TEE, tcb.SNP, 0, 0, 0, tcb.Microcode})
		} else {
			copy(r[off:], []byte{tcb.Bootloader, tcb.TEE, 0, 0, 0, 0, tcb.SNP, tcb.Microcode})
		}
	}
	for _, off := range []int{0x38, 0x180, 0x1e0, 0x1f0} {
		put(off)
	}
	if version >= 3 {
		copy(r[0x188:], map[string][]byte{"Milan": {0x19, 1, 1}, "Genoa": {0x19, 0x11, 1}, "Turin": {0x1a, 2, 1}}[product])
	}
	if version >= 5 {
		r[0x1f8], r[0x200] = 3, 7
	}
	copy(r[0x1a0:], chip)
	sum := sha512.Sum384(r[:snpSigned])
	rr, ss, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	copy(r[snpSigned:], reversed(rr.FillBytes(make([]byte, 48))))
	copy(r[snpSigned+snpSigPart:], reversed(ss.FillBytes(make([]byte, 48))))
	return r
}

func TestSNPForms(t *testing.T) {
	tcb := SNPTCB{Bootloader: 3, TEE: 1, SNP: 20, Microcode: 200}
	for _, tt := range []struct {
		version       uint32
		product, kind string
		chip          int
	}{
		{2, "Milan", "VCEK", 64},
		{3, "Genoa", "VCEK", 64},
		{3, "Milan", "VLEK", 64},
		{4, "Genoa", "VLEK", 64},
		{5, "Turin", "VCEK", 8},
		{5, "Milan", "VCEK", 64},
	} {
		name := fmt.Sprintf("v%d %s %s", tt.version, tt.product, tt.kind)
		level := tcb
		if tt.product == "Turin" {
			level.FMC = 4
		}
		chip := make([]byte, tt.chip)
		for i := range chip {
			chip[i] = byte(i + 1)
		}
		key, certs := amd(t, tt.product, tt.kind, level, chip)
		b := snpReport(t, key, tt.version, tt.kind, tt.product, level, chip)
		p := Policy{Collateral: Collateral{Certificates: certs}}
		c, err := Verify(b, p, testNow)
		if err != nil || c.Platform != tt.product || c.SNP.ReportedTCB != level || c.SNP.SigningKey != tt.kind || (tt.version == 5) != (c.SNP.CurrentMIT == "0x7") || (tt.kind == "VLEK") != (c.SNP.CSP == "csp.example") {
			t.Errorf("%s: %+v, %v", name, c, err)
			continue
		}
		for i := 0; i < len(b); i += every(1, 37) {
			b[i] ^= 1 << (i % 8)
			if _, err := Verify(b, p, testNow); err == nil || len(Fields(err)) == 0 {
				t.Errorf("%s: byte %#x flipped: %v", name, i, err)
			}
			b[i] ^= 1 << (i % 8)
		}

		// The same as an extended report with the host's certificates behind it.
		guid := map[string]string{"VCEK": "8d75da6364e66445adc5f4b93be8accd", "VLEK": "c24b07a85aa23e48aae639c045a0b8a1"}[tt.kind]
		id, _ := hex.DecodeString(guid)
		ask, _ := hex.DecodeString("79b3b74aacbbe44fa02f05aef327c782")
		head := 3 * 24
		table := le.AppendUint32(le.AppendUint32(id, uint32(head)), uint32(len(certs[0].Raw)))
		table = le.AppendUint32(le.AppendUint32(append(table, ask...), uint32(head+len(certs[0].Raw))), uint32(len(certs[1].Raw)))
		table = append(append(append(table, make([]byte, 24)...), certs[0].Raw...), certs[1].Raw...)
		table = append(table, make([]byte, 100)...)
		ext := append(slices.Clone(b), table...)
		if _, err := Verify(ext, Policy{}, testNow); err != nil {
			t.Errorf("%s: extended: %v", name, err)
		}
		for i := len(b); i < len(ext); i += 5 {
			ext[i] ^= 1 << (i % 8)
			if _, err := Verify(ext, Policy{}, testNow); err == nil || len(Fields(err)) == 0 {
				t.Errorf("%s: extended, byte %#x flipped: %v", name, i, err)
			}
			ext[i] ^= 1 << (i % 8)
		}
		for _, bad := range []struct {
			name, field string
			report      func() []byte
		}{
			{"another patch level", "reported_tcb", func() []byte {
				l := level
				l.Microcode++
				return snpReport(t, key, tt.version, tt.kind, tt.product, l, chip)
			}},
			{"another chip", "chip_id", func() []byte {
				return snpReport(t, key, tt.version, tt.kind, tt.product, level, append([]byte{9}, chip[1:]...))
			}},
			{"another key", "signature", func() []byte {
				return snpReport(t, ecKey(t, elliptic.P384()), tt.version, tt.kind, tt.product, level, chip)
			}},
			{"future version", "version", func() []byte { return snpReport(t, key, 6, tt.kind, tt.product, level, chip) }},
		} {
			_, err := Verify(bad.report(), p, testNow)
			if bad.field == "chip_id" && tt.kind == "VLEK" {
				continue // a VLEK is for no chip
			}
			if f := Fields(err); len(f) == 0 || f[0] != bad.field {
				t.Errorf("%s: %s: %v, want %s", name, bad.name, err, bad.field)
			}
		}
	}
	key, certs := amd(t, "Genoa", "VCEK", tcb, make([]byte, 64))
	if _, err := Verify(snpReport(t, key, 3, "VCEK", "Milan", tcb, nil), Policy{Collateral: Collateral{Certificates: certs}}, testNow); len(Fields(err)) == 0 || Fields(err)[0] != "cpuid" {
		t.Errorf("another product: %v", err)
	}
}
