// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/big"
	"time"
)

// Constants of DCAP quotes.
const (
	quoteHeaderSize = 48
	enclaveReport   = 384
	tdReport10      = 584
	tdReport15      = 648

	attKeyECDSA256 = 2

	certPPID     = 1
	certPPID2048 = 2
	certPPID3072 = 3
	certPCKLeaf  = 4
	certPCKChain = 5
	certQEReport = 6
)

// The vendor id of Intel's quoting enclave.
var intelQE = [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// quote is a parsed SGX or TDX quote.
type quote struct {
	version  uint16
	tee      TEE
	signed   []byte // what the signature is over
	body     []byte
	sig      []byte
	key      []byte // attestation key, X ‖ Y
	qeReport []byte
	qeSig    []byte
	auth     []byte
	certType uint16
	certData []byte
	trailing int // bytes behind the end that were left out
}

// isQuote tells a quote, which may lie beside the collateral, from everything else.
func isQuote(b []byte) bool {
	return len(b) >= quoteHeaderSize && le.Uint16(b) >= 3 && le.Uint16(b) <= 5 && [16]byte(b[12:28]) == intelQE
}

// parseQuote takes a quote apart. Every byte belongs to a field: what is left
// over at any level is an error, but for zeros behind the end, which the buffers of
// many platforms leave there, and with trailing anything behind the end.
func parseQuote(b []byte, trailing bool) (*quote, error) {
	r := &reader{b: b}
	q := &quote{version: r.u16("header.version")}
	if q.version < 3 || q.version > 5 {
		return nil, bad("header.version", "is %d, known are SGX quotes of version 3 and SGX and TDX quotes of version 4 and 5", q.version)
	}
	if t := r.u16("header.att_key_type"); t != attKeyECDSA256 {
		return nil, bad("header.att_key_type", "is %d, known is 2 (ECDSA P-256)", t)
	}
	switch t := r.u32("header.tee_type"); {
	case t == 0:
		q.tee = SGX
	case t == 0x81 && q.version >= 4:
		q.tee = TDX
	default:
		return nil, bad("header.tee_type", "is %#x in a quote of version %d", t, q.version)
	}
	r.take("header", 4) // SVNs of QE and PCE, or reserved
	if id := r.take("header.qe_vendor_id", 16); r.err == nil && [16]byte(id) != intelQE {
		return nil, bad("header.qe_vendor_id", "is %x, not Intel's", id)
	}
	r.take("header.user_data", 20)
	size := map[TEE]int{SGX: enclaveReport, TDX: tdReport10}[q.tee]
	if q.version == 5 {
		kind, n := r.u16("body.type"), r.u32("body.size")
		want, ok := map[uint16]struct {
			tee  TEE
			size int
		}{1: {SGX, enclaveReport}, 2: {TDX, tdReport10}, 3: {TDX, tdReport15}}[kind]
		if !ok || want.tee != q.tee {
			return nil, bad("body.type", "is %d in a quote of TEE %s", kind, q.tee)
		}
		if int64(n) != int64(want.size) {
			return nil, bad("body.size", "is %d, a body of type %d has %d bytes", n, kind, want.size)
		}
		size = want.size
	}
	q.body = r.take("body", size)
	q.signed = b[:r.off]
	n := r.u32("signature_data.size")
	if r.err == nil && int64(n) != int64(len(b)-r.off) {
		if int64(n) < int64(len(b)-r.off) {
			if trailing || allZero(b[r.off+int(n):]) {
				q, err := parseQuote(b[:r.off+int(n)], false)
				if q != nil {
					q.trailing = len(b) - r.off - int(n)
				}
				return q, err
			}
			return nil, bad("trailing", "%d bytes behind the end of the quote", int64(len(b)-r.off)-int64(n))
		}
		return nil, bad("signature_data.size", "is %d, %d bytes are left", n, len(b)-r.off)
	}
	q.sig = r.take("signature_data.signature", 64)
	q.key = r.take("signature_data.attestation_key", 64)
	inner, prefix := r, "signature_data."
	if q.version >= 4 {
		if t := r.u16("certification_data.type"); r.err == nil && t != certQEReport {
			return nil, bad("certification_data.type", "is %d, want 6 (QE report)", t)
		}
		n := r.u32("certification_data.size")
		if r.err == nil && int64(n) != int64(len(r.rest())) {
			return nil, bad("certification_data.size", "is %d, %d bytes are left", n, len(r.rest()))
		}
		prefix = "certification_data."
	}
	q.qeReport = inner.take(prefix+"qe_report", enclaveReport)
	q.qeSig = inner.take(prefix+"qe_report_signature", 64)
	q.auth = inner.take(prefix+"qe_auth_data", int(inner.u16(prefix+"qe_auth_data.size")))
	q.certType = inner.u16(prefix + "pck_certification_data.type")
	n = inner.u32(prefix + "pck_certification_data.size")
	if inner.err == nil && int64(n) != int64(len(inner.rest())) {
		return nil, bad(prefix+"pck_certification_data.size", "is %d, %d bytes are left", n, len(inner.rest()))
	}
	q.certData = inner.take(prefix+"pck_certification_data", len(inner.rest()))
	return q, inner.err
}

// verifyQuote verifies an SGX or TDX quote from the body up to Intel's root.
func verifyQuote(b []byte, p *Policy, now time.Time) (Claims, error) {
	q, err := parseQuote(b, p.AllowTrailing)
	if err != nil {
		return Claims{}, err
	}
	c, err := q.verify(p, now)
	if err != nil && q.trailing > 0 {
		err = errors.Join(err, bad("trailing", "there are %d bytes behind the end of the quote, too", q.trailing))
	}
	c.Trailing = q.trailing
	return c, err
}

func (q *quote) verify(p *Policy, now time.Time) (Claims, error) {
	var pck *pck
	var err error
	if q.certType == certPCKChain {
		pck, err = p.Collateral.pckChain(q.certData, now)
	} else {
		pck, err = p.Collateral.pckLookup(q, p.AllowEncryptedPPID, now)
	}
	if err != nil {
		return Claims{}, err
	}
	if !verifyP256(pck.key, q.qeReport, q.qeSig) {
		return Claims{}, bad("qe_report_signature", "does not verify under the PCK certificate's key")
	}
	sum := sha256.Sum256(append(bytes.Clone(q.key), q.auth...))
	if !bytes.Equal(q.qeReport[320:352], sum[:]) || !allZero(q.qeReport[352:384]) {
		return Claims{}, bad("qe_report.report_data", "does not bind the attestation key and the authentication data")
	}
	key, err := p256Key(q.key)
	if err != nil {
		return Claims{}, err
	}
	if !verifyP256(key, q.signed, q.sig) {
		return Claims{}, bad("signature", "does not verify over header and body under the attestation key")
	}
	c := q.claims()
	c.Platform, c.PlatformID = hex.EncodeToString(pck.fmspc[:]), hex.EncodeToString(pck.ppid)
	if err := p.evaluateTCB(&c, q, pck, now); err != nil {
		return Claims{}, err
	}
	return c, nil
}

// p256Key makes a public key of X ‖ Y. It refuses points that are not on the curve.
func p256Key(b []byte) (*ecdsa.PublicKey, error) {
	k, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, b...))
	if err != nil {
		return nil, bad("attestation_key", "is not a point of P-256")
	}
	return k, nil
}

// verifyP256 verifies r ‖ s over SHA-256.
func verifyP256(k *ecdsa.PublicKey, msg, sig []byte) bool {
	sum := sha256.Sum256(msg)
	return len(sig) == 64 && ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

// SGXClaims are the fields of an SGX enclave's report.
type SGXClaims struct {
	CPUSVN     string `json:"cpu_svn"`
	MiscSelect uint32 `json:"misc_select"`
	Attributes string `json:"attributes"`
	MRENCLAVE  string `json:"mr_enclave"`
	MRSIGNER   string `json:"mr_signer"`
	ConfigID   string `json:"config_id"`
	ISVProdID  uint16 `json:"isv_prod_id"`
	ISVSVN     uint16 `json:"isv_svn"`
	ConfigSVN  uint16 `json:"config_svn"`
	ExtProdID  string `json:"isv_ext_prod_id"`
	FamilyID   string `json:"isv_family_id"`
}

// TDXClaims are the fields of a trust domain's report.
type TDXClaims struct {
	TEETCBSVN      string    `json:"tee_tcb_svn"`
	MRSEAM         string    `json:"mr_seam"`
	MRSIGNERSEAM   string    `json:"mr_signer_seam"`
	SEAMAttributes string    `json:"seam_attributes"`
	TDAttributes   string    `json:"td_attributes"`
	XFAM           string    `json:"xfam"`
	MRTD           string    `json:"mr_td"`
	MRCONFIGID     string    `json:"mr_config_id"`
	MROWNER        string    `json:"mr_owner"`
	MROWNERCONFIG  string    `json:"mr_owner_config"`
	RTMR           [4]string `json:"rtmr"`
	TEETCBSVN2     string    `json:"tee_tcb_svn_2,omitempty"` // TDX 1.5
	MRSERVICETD    string    `json:"mr_service_td,omitempty"` // TDX 1.5
	Events         int       `json:"events,omitempty"`        // in the event log that gives the RTMRs
}

const sgxDebug = 2 // ATTRIBUTES.DEBUG

func (q *quote) claims() Claims {
	b := q.body
	h := func(from, n int) string { return hex.EncodeToString(b[from : from+n]) }
	c := Claims{TEE: q.tee, Evidence: "quote v" + string(rune('0'+q.version)), Confidentiality: "hardware", HostIsolation: "hardware"}
	if q.tee == SGX {
		c.Measurement, c.Signer, c.ReportData = h(64, 32), h(128, 32), h(320, 64)
		c.SVN = uint64(le.Uint16(b[258:]))
		c.Debug = b[48]&sgxDebug != 0
		c.SGX = &SGXClaims{
			CPUSVN: h(0, 16), MiscSelect: le.Uint32(b[16:]), ExtProdID: h(32, 16), Attributes: h(48, 16), MRENCLAVE: h(64, 32), MRSIGNER: h(128, 32),
			ConfigID: h(192, 64), ISVProdID: le.Uint16(b[256:]), ISVSVN: le.Uint16(b[258:]), ConfigSVN: le.Uint16(b[260:]), FamilyID: h(304, 16),
		}
	} else {
		c.Measurement, c.Signer, c.ReportData = h(136, 48), h(64, 48), h(520, 64)
		c.Debug = b[120]&1 != 0
		c.TDX = &TDXClaims{
			TEETCBSVN: h(0, 16), MRSEAM: h(16, 48), MRSIGNERSEAM: h(64, 48), SEAMAttributes: h(112, 8), TDAttributes: h(120, 8), XFAM: h(128, 8),
			MRTD: h(136, 48), MRCONFIGID: h(184, 48), MROWNER: h(232, 48), MROWNERCONFIG: h(280, 48),
			RTMR: [4]string{h(328, 48), h(376, 48), h(424, 48), h(472, 48)},
		}
		if len(b) == tdReport15 {
			c.TDX.TEETCBSVN2, c.TDX.MRSERVICETD = h(584, 16), h(600, 48)
		}
	}
	if c.Debug {
		c.Confidentiality, c.HostIsolation = "none", "none"
	}
	return c
}
