// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Layout of an SEV-SNP attestation report.
// Source: AMD SEV-SNP firmware ABI specification (56860), ATTESTATION_REPORT.
const (
	snpReportSize = 0x4a0
	snpSigned     = 0x2a0
	snpSigPart    = 72 // R and S, little-endian, 48 bytes used

	snpPolicyMigrate = 1 << 18
	snpPolicyDebug   = 1 << 19
)

// isSNP tells a report from a quote: a quote has its key type where a report has
// the upper half of its version.
func isSNP(b []byte) bool { return le.Uint16(b[2:]) == 0 }

// SNPTCB is the patch level of an SNP platform. FMC exists from Turin on.
type SNPTCB struct {
	FMC        uint8 `json:"fmc"`
	Bootloader uint8 `json:"bootloader"`
	TEE        uint8 `json:"tee"`
	SNP        uint8 `json:"snp"`
	Microcode  uint8 `json:"microcode"`
}

func (t SNPTCB) String() string {
	return fmt.Sprintf("bootloader %d, TEE %d, SNP %d, microcode %d, FMC %d", t.Bootloader, t.TEE, t.SNP, t.Microcode, t.FMC)
}

func (t SNPTCB) atLeast(m SNPTCB) bool {
	return t.FMC >= m.FMC && t.Bootloader >= m.Bootloader && t.TEE >= m.TEE && t.SNP >= m.SNP && t.Microcode >= m.Microcode
}

func snpTCB(b []byte, turin bool) SNPTCB {
	if turin {
		return SNPTCB{FMC: b[0], Bootloader: b[1], TEE: b[2], SNP: b[3], Microcode: b[7]}
	}
	return SNPTCB{Bootloader: b[0], TEE: b[1], SNP: b[6], Microcode: b[7]}
}

// SNPClaims are the fields of an SNP guest's report.
type SNPClaims struct {
	GuestSVN        uint32 `json:"guest_svn"`
	Policy          string `json:"policy"`
	Migratable      bool   `json:"migratable"`
	FamilyID        string `json:"family_id"`
	ImageID         string `json:"image_id"`
	VMPL            uint32 `json:"vmpl"`
	PlatformInfo    string `json:"platform_info"`
	SigningKey      string `json:"signing_key"`
	HostData        string `json:"host_data"`
	IDKeyDigest     string `json:"id_key_digest"`
	AuthorKeyDigest string `json:"author_key_digest"`
	ReportID        string `json:"report_id"`
	ReportIDMA      string `json:"report_id_ma"`
	ReportedTCB     SNPTCB `json:"reported_tcb"`
	CurrentTCB      SNPTCB `json:"current_tcb"`
	CommittedTCB    SNPTCB `json:"committed_tcb"`
	LaunchTCB       SNPTCB `json:"launch_tcb"`
	CPUID           string `json:"cpuid,omitempty"` // family, model, stepping; from version 3 on
	LaunchMIT       string `json:"launch_mit_vector,omitempty"`
	CurrentMIT      string `json:"current_mit_vector,omitempty"`
	ChipID          string `json:"chip_id"`
	Firmware        string `json:"firmware"`
	CSP             string `json:"csp,omitempty"` // of a VLEK
}

// Endorsed is the verdict on an SNP platform: AMD's certificate is for the patch
// level that the report claims. AMD publishes no verdicts; Policy.MinSNPTCB is
// how a policy asks for more.
const Endorsed = "Endorsed"

// verifySNP verifies an SNP report up to AMD's root.
func verifySNP(b []byte, p *Policy, now time.Time) (Claims, error) {
	if len(b) < snpReportSize {
		return Claims{}, bad("report", "is cut short: %d bytes, want %d", len(b), snpReportSize)
	}
	r, table := b[:snpReportSize], b[snpReportSize:]
	version := le.Uint32(r)
	if version < 2 || version > 5 {
		return Claims{}, bad("version", "is %d, known are 2 to 5", version)
	}
	if a := le.Uint32(r[0x34:]); a != 1 {
		return Claims{}, bad("signature_algo", "is %d, known is 1 (ECDSA P-384 with SHA-384)", a)
	}
	extra, err := certTable(table)
	if err != nil {
		return Claims{}, err
	}
	kind := map[byte]string{0: "VCEK", 1: "VLEK"}[r[0x48]>>2&7]
	if kind == "" {
		return Claims{}, bad("key_info.signing_key", "is %d: the report is not signed by a VCEK or VLEK", r[0x48]>>2&7)
	}
	ek, err := p.Collateral.endorsementKey(r, kind, extra, now)
	if err != nil {
		return Claims{}, err
	}
	turin := ek.product == "Turin"
	if version >= 3 {
		if prod := snpProduct(r[0x188], r[0x189]); prod != "" && prod != ek.product {
			return Claims{}, bad("cpuid", "is that of a %s, the certificate is for a %s", prod, ek.product)
		}
	}
	reported := snpTCB(r[0x180:], turin)
	if reported != ek.tcb {
		return Claims{}, bad("reported_tcb", "is %v, the %s is for %v", reported, kind, ek.tcb)
	}
	chip := r[0x1a0:0x1e0]
	if kind == "VCEK" && !allZero(chip) && !bytes.Equal(chip[:len(ek.hwid)], ek.hwid) {
		return Claims{}, bad("chip_id", "is %x, the VCEK is for %x", chip, ek.hwid)
	}
	h := func(from, n int) string { return hex.EncodeToString(r[from : from+n]) }
	policy := le.Uint64(r[8:])
	c := Claims{
		TEE: SNP, Evidence: fmt.Sprintf("report v%d", version), Measurement: h(0x90, 48), Signer: h(0xe0, 48), ReportData: h(0x50, 64),
		SVN: uint64(le.Uint32(r[4:])), Debug: policy&snpPolicyDebug != 0, Confidentiality: "hardware", HostIsolation: "hardware",
		TCBStatus: Endorsed, Platform: ek.product, PlatformID: hex.EncodeToString(chip), Missing: ek.missing,
		SNP: &SNPClaims{
			GuestSVN: le.Uint32(r[4:]), Policy: fmt.Sprintf("%#x", policy), Migratable: policy&snpPolicyMigrate != 0,
			FamilyID: h(0x10, 16), ImageID: h(0x20, 16), VMPL: le.Uint32(r[0x30:]), PlatformInfo: fmt.Sprintf("%#x", le.Uint64(r[0x40:])), SigningKey: kind,
			HostData: h(0xc0, 32), IDKeyDigest: h(0xe0, 48), AuthorKeyDigest: h(0x110, 48), ReportID: h(0x140, 32), ReportIDMA: h(0x160, 32),
			ReportedTCB: reported, CurrentTCB: snpTCB(r[0x38:], turin), CommittedTCB: snpTCB(r[0x1e0:], turin), LaunchTCB: snpTCB(r[0x1f0:], turin),
			ChipID: hex.EncodeToString(chip), Firmware: fmt.Sprintf("%d.%d.%d", r[0x1ea], r[0x1e9], r[0x1e8]), CSP: ek.csp,
		},
	}
	if version >= 3 {
		c.SNP.CPUID = fmt.Sprintf("%#x/%#x/%#x", r[0x188], r[0x189], r[0x18a])
	}
	if version >= 5 {
		c.SNP.LaunchMIT, c.SNP.CurrentMIT = fmt.Sprintf("%#x", le.Uint64(r[0x1f8:])), fmt.Sprintf("%#x", le.Uint64(r[0x200:]))
	}
	if c.Debug {
		c.Confidentiality, c.HostIsolation = "none", "none"
	}
	return c, p.judgeSNP(c.SNP)
}

// judgeSNP applies what the policy asks of SNP reports alone.
func (p *Policy) judgeSNP(c *SNPClaims) error {
	var errs []error
	if c.Migratable && !p.AllowMigrate {
		errs = append(errs, bad("policy.migrate_ma", "the guest may be moved by a migration agent"))
	}
	if c.VMPL > p.MaxVMPL {
		errs = append(errs, bad("vmpl", "is %d, the policy allows at most %d", c.VMPL, p.MaxVMPL))
	}
	if !c.ReportedTCB.atLeast(p.MinSNPTCB) {
		errs = append(errs, bad("reported_tcb", "is %v, the policy asks for at least %v", c.ReportedTCB, p.MinSNPTCB))
	}
	return errors.Join(errs...)
}

// snpProduct names the product line of a family and model.
func snpProduct(family, model byte) string {
	switch {
	case family == 0x19 && model < 0x10:
		return "Milan"
	case family == 0x19 && (model < 0x20 || model >= 0xa0 && model < 0xb0):
		return "Genoa" // and Bergamo, Siena
	case family == 0x1a && model < 0x20:
		return "Turin"
	}
	return ""
}

// endorsement is a verified VCEK or VLEK.
type endorsement struct {
	product string
	tcb     SNPTCB
	hwid    []byte
	csp     string
	missing []string
}

// endorsementKey finds the certificate whose key signed the report, and verifies
// it up to AMD's root.
func (c *Collateral) endorsementKey(r []byte, kind string, extra []*x509.Certificate, now time.Time) (*endorsement, error) {
	for _, zero := range [][2]int{{snpSigned + 48, snpSigned + snpSigPart}, {snpSigned + snpSigPart + 48, snpReportSize}} {
		if !allZero(r[zero[0]:zero[1]]) {
			return nil, bad("signature", "reserved bytes %#x to %#x are not zero", zero[0], zero[1])
		}
	}
	big48 := func(b []byte) *big.Int {
		b = slices.Clone(b[:48])
		slices.Reverse(b)
		return new(big.Int).SetBytes(b)
	}
	sum := sha512.Sum384(r[:snpSigned])
	rr, ss := big48(r[snpSigned:]), big48(r[snpSigned+snpSigPart:])
	certs := append(append([]*x509.Certificate{}, c.Certificates...), extra...)
	var leaf *x509.Certificate
	tried := 0
	for _, cert := range certs {
		k, ok := cert.PublicKey.(*ecdsa.PublicKey)
		if !ok || k.Curve != elliptic.P384() || !strings.HasPrefix(cert.Subject.CommonName, "SEV-"+kind) {
			continue
		}
		tried++
		if ecdsa.Verify(k, sum[:], rr, ss) {
			leaf = cert
			break
		}
	}
	field := strings.ToLower(kind)
	switch {
	case leaf != nil:
	case tried > 0:
		return nil, bad("signature", "does not verify under the key of any %s given (%d)", kind, tried)
	case len(c.Damaged) > 0:
		return nil, bad("collateral", "%s %s", c.Damaged[0].Name, c.Damaged[0].Reason)
	default:
		return nil, bad("collateral."+field, "no %s certificate was given", kind)
	}
	ask, ark, err := amdChain(leaf, certs, kind, now)
	if err != nil {
		return nil, err
	}
	e, err := endorsementExtensions(leaf, field)
	if err != nil {
		return nil, err
	}
	if want := strings.TrimPrefix(ark.Subject.CommonName, "ARK-"); e.product != want {
		return nil, bad(field, "is for product %q under the root of %s", e.product, want)
	}
	for _, x := range []struct{ cert, issuer *x509.Certificate }{{leaf, ask}, {ask, ark}} {
		checked, err := c.revoked(x.cert, x.issuer, now, "collateral.crl")
		if err != nil {
			return nil, err
		}
		// AMD's lists are issued by the ARK and name intermediates.
		if !checked && x.issuer == ark {
			e.missing = append(e.missing, "crl")
		}
	}
	return e, nil
}

// amdChain verifies a VCEK or VLEK up to one of AMD's roots.
func amdChain(leaf *x509.Certificate, certs []*x509.Certificate, kind string, now time.Time) (ask, ark *x509.Certificate, err error) {
	field := strings.ToLower(kind)
	reason := bad(field, "was not issued by AMD: no intermediate for %q", leaf.Issuer.CommonName)
	for _, a := range append(slices.Clone(certs), amdCerts()...) {
		if !bytes.Equal(leaf.RawIssuer, a.RawSubject) || kind == "VLEK" != strings.HasPrefix(a.Subject.CommonName, "SEV-VLEK-") {
			continue
		}
		if err := linked(leaf, a, field, now); err != nil {
			reason = err
			continue
		}
		for _, root := range amdCerts() {
			if !strings.HasPrefix(root.Subject.CommonName, "ARK-") || !bytes.Equal(a.RawIssuer, root.RawSubject) {
				continue
			}
			if err := linked(a, root, field+".chain", now); err != nil {
				reason = err
				continue
			}
			if why := validAt(root, now); why != "" {
				reason = bad(field+".chain", "certificate %s %s", root.Subject.CommonName, why)
				continue
			}
			return a, root, nil
		}
	}
	return nil, nil, reason
}

var oidAMD = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}

// endorsementExtensions reads AMD's extensions.
// Source: AMD VCEK certificate and KDS interface specification (57230), section 3.
func endorsementExtensions(cert *x509.Certificate, field string) (*endorsement, error) {
	e := &endorsement{}
	spl := map[int]uint8{}
	for _, x := range cert.Extensions {
		if len(x.Id) < len(oidAMD)+1 || !x.Id[:len(oidAMD)].Equal(oidAMD) {
			continue
		}
		rest := x.Id[len(oidAMD):]
		switch {
		case rest.Equal(asn1.ObjectIdentifier{2}) || rest.Equal(asn1.ObjectIdentifier{5}):
			var raw asn1.RawValue
			if _, err := asn1.Unmarshal(x.Value, &raw); err != nil {
				return nil, bad(field, "extension %v cannot be read", x.Id)
			}
			if rest[0] == 5 {
				e.csp = string(raw.Bytes)
			} else {
				e.product, _, _ = strings.Cut(string(raw.Bytes), "-")
			}
		case len(rest) == 2 && rest[0] == 3:
			var v int
			if _, err := asn1.Unmarshal(x.Value, &v); err != nil || v < 0 || v > 255 {
				return nil, bad(field, "extension %v cannot be read", x.Id)
			}
			spl[rest[1]] = uint8(v)
		case rest.Equal(asn1.ObjectIdentifier{4}):
			e.hwid = x.Value
			// Some certificates wrap the bytes in an OCTET STRING.
			var inner []byte
			if len(x.Value) != 64 && len(x.Value) != 8 {
				if _, err := asn1.Unmarshal(x.Value, &inner); err != nil {
					return nil, bad(field, "hardware id of %d bytes", len(x.Value))
				}
				e.hwid = inner
			}
		}
	}
	for _, n := range []int{1, 2, 3, 8} {
		if _, ok := spl[n]; !ok {
			return nil, bad(field, "says nothing about patch level %d", n)
		}
	}
	if field == "vcek" && len(e.hwid) != 64 && len(e.hwid) != 8 {
		return nil, bad(field, "hardware id of %d bytes", len(e.hwid))
	}
	e.tcb = SNPTCB{FMC: spl[9], Bootloader: spl[1], TEE: spl[2], SNP: spl[3], Microcode: spl[8]}
	return e, nil
}

// snpTableIDs are the GUIDs of certificates in a table, as they lie in memory.
var snpTableIDs = []string{
	"8d75da6364e66445adc5f4b93be8accd", // VCEK
	"c24b07a85aa23e48aae639c045a0b8a1", // VLEK
	"79b3b74aacbbe44fa02f05aef327c782", // ASK
	"a406b4c003a8524997433fb6014cd0ae", // ARK
}

// certTable reads the certificates that an extended report carries behind it.
// Source: AMD GHCB specification (56421), SNP extended guest request.
func certTable(b []byte) ([]*x509.Certificate, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < 24 {
		return nil, bad("trailing", "%d bytes behind the end of the report", len(b))
	}
	var list []*x509.Certificate
	used := make([]bool, len(b))
	mark := func(from, n int) {
		for i := from; i < from+n; i++ {
			used[i] = true
		}
	}
	for at := 0; ; at += 24 {
		if at+24 > len(b) {
			return nil, bad("certificate_table", "has no end")
		}
		mark(at, 24)
		if allZero(b[at : at+24]) {
			break
		}
		off, n := le.Uint32(b[at+16:]), le.Uint32(b[at+20:])
		if uint64(off)+uint64(n) > uint64(len(b)) {
			return nil, bad("certificate_table", "entry %d lies outside of the evidence", at/24)
		}
		if !slices.Contains(snpTableIDs, hex.EncodeToString(b[at:at+16])) {
			return nil, bad("certificate_table", "entry %d has unknown id %x", at/24, b[at:at+16])
		}
		c, err := x509.ParseCertificate(b[off : off+n])
		if err != nil {
			return nil, bad("certificate_table", "entry %d cannot be read: %v", at/24, err)
		}
		mark(int(off), int(n))
		list = append(list, c)
	}
	for i, u := range used {
		if !u && b[i] != 0 {
			return nil, bad("certificate_table", "byte %d belongs to nothing", i)
		}
	}
	return list, nil
}
