// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// tcbInfo is Intel's verdict on the patch levels of one kind of platform.
type tcbInfo struct {
	ID         string `json:"id"`
	Version    int    `json:"version"`
	IssueDate  string `json:"issueDate"`
	NextUpdate string `json:"nextUpdate"`
	FMSPC      hexa   `json:"fmspc"`
	PCEID      hexa   `json:"pceId"`
	TCBType    int    `json:"tcbType"`
	Number     uint32 `json:"tcbEvaluationDataNumber"`
	TDXModule  *struct {
		MRSIGNER       hexa `json:"mrsigner"`
		Attributes     hexa `json:"attributes"`
		AttributesMask hexa `json:"attributesMask"`
	} `json:"tdxModule"`
	TDXModules []tdxModule `json:"tdxModuleIdentities"`
	Levels     []tcbLevel  `json:"tcbLevels"`
}

type tcbLevel struct {
	TCB        tcbSVNs  `json:"tcb"`
	Date       string   `json:"tcbDate"`
	Status     string   `json:"tcbStatus"`
	Advisories []string `json:"advisoryIDs"`
}

type tcbSVNs struct {
	SGX    [16]int
	TDX    [16]int
	HasTDX bool
	PCE    int
}

// UnmarshalJSON reads both forms: arrays (version 3), and one key a component (version 2).
func (t *tcbSVNs) UnmarshalJSON(b []byte) error {
	type svn struct {
		SVN *int `json:"svn"`
	}
	var v3 struct {
		SGX []svn `json:"sgxtcbcomponents"`
		TDX []svn `json:"tdxtcbcomponents"`
		PCE *int  `json:"pcesvn"`
	}
	if err := json.Unmarshal(b, &v3); err != nil {
		return err
	}
	if v3.PCE == nil {
		return errors.New("level without pcesvn")
	}
	t.PCE = *v3.PCE
	fill := func(dst *[16]int, src []svn) error {
		if len(src) != 16 {
			return fmt.Errorf("level with %d components, want 16", len(src))
		}
		for i, s := range src {
			if s.SVN == nil {
				return errors.New("component without svn")
			}
			dst[i] = *s.SVN
		}
		return nil
	}
	if v3.SGX == nil {
		var v2 map[string]json.RawMessage
		if err := json.Unmarshal(b, &v2); err != nil {
			return err
		}
		for i := range t.SGX {
			raw, ok := v2[fmt.Sprintf("sgxtcbcomp%02dsvn", i+1)]
			if !ok {
				return errors.New("level without components")
			}
			if err := json.Unmarshal(raw, &t.SGX[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if v3.TDX != nil {
		t.HasTDX = true
		if err := fill(&t.TDX, v3.TDX); err != nil {
			return err
		}
	}
	return fill(&t.SGX, v3.SGX)
}

// enclaveLevel is a verdict on one security version of an enclave or TDX module.
type enclaveLevel struct {
	TCB struct {
		ISVSVN *int `json:"isvsvn"`
	} `json:"tcb"`
	Date       string   `json:"tcbDate"`
	Status     string   `json:"tcbStatus"`
	Advisories []string `json:"advisoryIDs"`
}

type qeIdentity struct {
	ID             string         `json:"id"`
	Version        int            `json:"version"`
	IssueDate      string         `json:"issueDate"`
	NextUpdate     string         `json:"nextUpdate"`
	Number         uint32         `json:"tcbEvaluationDataNumber"`
	MiscSelect     hexa           `json:"miscselect"`
	MiscSelectMask hexa           `json:"miscselectMask"`
	Attributes     hexa           `json:"attributes"`
	AttributesMask hexa           `json:"attributesMask"`
	MRSIGNER       hexa           `json:"mrsigner"`
	ISVProdID      int            `json:"isvprodid"`
	Levels         []enclaveLevel `json:"tcbLevels"`
}

type hexa []byte

func (h *hexa) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	*h = raw
	return err
}

// severity orders the verdicts; unknown ones are worst.
func severity(status string) int {
	for i, s := range []string{UpToDate, SWHardeningNeeded, ConfigurationNeeded, ConfigurationAndSWNeeded, TDRelaunchAdvised, TDRelaunchAdvisedConfig, OutOfDate, OutOfDateConfigurationNeeded, Revoked} {
		if s == status {
			return i
		}
	}
	return 100
}

// converge puts the verdicts on two parts of a platform together: the worse one, but
// what is out of date and what needs configuration add up.
// Source: Intel QuoteVerificationReference, convergence of TCB statuses.
func converge(a, b string) string {
	if severity(a) < severity(b) {
		a, b = b, a
	}
	if a == OutOfDate && (b == ConfigurationNeeded || b == ConfigurationAndSWNeeded || b == TDRelaunchAdvisedConfig) {
		return OutOfDateConfigurationNeeded
	}
	return a
}

// relaunch says whether a trust domain that is out of date would not be, were it
// started anew: its host has updated the TDX module under it, which reports of TDX 1.5
// show, and everything else is up to date.
// Source: Intel SGX/TDX DCAP quote verification, TD relaunch check.
func (t *tcbInfo) relaunch(q *quote, qe, sgx, tdx, module string) string {
	if len(q.body) != tdReport15 || severity(qe) >= severity(OutOfDate) || severity(sgx) > severity(ConfigurationAndSWNeeded) ||
		tdx != OutOfDate && tdx != OutOfDateConfigurationNeeded || module != OutOfDate {
		return tdx
	}
	now, best := q.body[584:600], t.Levels[0].TCB.TDX
	need := best[0]
	if now[1] > 0 {
		m := t.moduleOf(now[1])
		if m == nil || len(m.Levels) == 0 || m.Levels[0].TCB.ISVSVN == nil {
			return tdx
		}
		need = *m.Levels[0].TCB.ISVSVN
	}
	switch {
	case int(now[0]) < need || int(now[2]) < best[2]:
		return tdx
	case sgx == ConfigurationNeeded || sgx == ConfigurationAndSWNeeded || tdx == OutOfDateConfigurationNeeded:
		return TDRelaunchAdvisedConfig
	}
	return TDRelaunchAdvised
}

// evaluateTCB asks Intel's collateral about the platform, the TDX module and the
// quoting enclave, and puts the worst verdict into the claims.
// Source: Intel SGX/TDX PCS API v4, "Get TCB Info" and "Get QE Identity".
func (p *Policy) evaluateTCB(c *Claims, q *quote, k *pck, now time.Time) error {
	c.TCBStatus = NotEvaluated
	c.Missing = k.missing
	if d := p.Collateral.Damaged; len(d) > 0 {
		return bad("collateral", "%s %s", d[0].Name, d[0].Reason)
	}
	info, err := p.tcbInfo(q.tee, k, now)
	if err != nil {
		return err
	}
	id, err := p.qeIdentity(q.tee, now)
	if err != nil {
		return err
	}
	if info == nil {
		c.Missing = append(c.Missing, "tcb_info")
	}
	if id == nil {
		c.Missing = append(c.Missing, "qe_identity")
	}
	if len(c.Missing) > 0 && !p.AllowMissingCollateral && (info == nil || id == nil) {
		return bad("collateral."+strings.Join(c.Missing, "+"), "is missing for %s platform %x", q.tee, k.fmspc)
	}
	// The date is that of the level which decides.
	dated := func(l *enclaveLevel, worst string) {
		c.Advisories = append(c.Advisories, l.Advisories...)
		if worst == "" || severity(l.Status) > severity(worst) {
			c.TCBDate = l.Date
		}
	}
	qe := UpToDate
	if id != nil {
		level, err := id.match(q.qeReport)
		if err != nil {
			return err
		}
		dated(level, "")
		qe = level.Status
	}
	if info == nil {
		// The quoting enclave alone is no verdict on the platform.
		if c.TCBStatus = qe; severity(qe) <= severity(SWHardeningNeeded) {
			c.TCBStatus, c.TCBDate = NotEvaluated, ""
		}
		return nil
	}
	worst := qe
	var module *enclaveLevel
	if q.tee == TDX {
		if module, err = info.module(q.body); err != nil {
			return err
		}
		if module != nil {
			dated(module, worst)
			worst = converge(worst, module.Status)
		}
	}
	level, sgx := info.level(q, k)
	if level == nil {
		return bad("tcb_status", "the platform is below every level that Intel lists for %x: components %v, PCE %d%s", k.fmspc, k.cpu, k.pceSVN, tdxSVN(q))
	}
	status := level.Status
	if module != nil {
		status = info.relaunch(q, qe, sgx, converge(status, module.Status), module.Status)
	}
	c.Advisories = append(c.Advisories, level.Advisories...)
	if id == nil && module == nil || severity(level.Status) > severity(worst) {
		c.TCBDate = level.Date
	}
	c.TCBStatus = converge(status, qe)
	return nil
}

func tdxSVN(q *quote) string {
	if q.tee != TDX {
		return ""
	}
	return fmt.Sprintf(", TDX %v", q.body[:16])
}

// level finds the first level that the platform reaches, and of a TDX platform also
// the verdict on what it has beside TDX.
func (t *tcbInfo) level(q *quote, k *pck) (l *tcbLevel, sgx string) {
next:
	for i := range t.Levels {
		l := &t.Levels[i]
		for n, svn := range l.TCB.SGX {
			if k.cpu[n] < svn {
				continue next
			}
		}
		if k.pceSVN < l.TCB.PCE {
			continue
		}
		if sgx == "" {
			sgx = l.Status
		}
		if q.tee == TDX {
			// With a TDX module of version 1 or higher, its own levels say about
			// the first two components.
			first := 0
			if q.body[1] > 0 {
				first = 2
			}
			for n := first; n < 16; n++ {
				if int(q.body[n]) < l.TCB.TDX[n] {
					continue next
				}
			}
		}
		return l, sgx
	}
	return nil, sgx
}

// tdxModule is Intel's identity of one version of the TDX module.
type tdxModule struct {
	ID             string         `json:"id"`
	MRSIGNER       hexa           `json:"mrsigner"`
	Attributes     hexa           `json:"attributes"`
	AttributesMask hexa           `json:"attributesMask"`
	Levels         []enclaveLevel `json:"tcbLevels"`
}

func (t *tcbInfo) moduleOf(version byte) *tdxModule {
	for i := range t.TDXModules {
		if strings.EqualFold(t.TDXModules[i].ID, fmt.Sprintf("TDX_%02X", version)) {
			return &t.TDXModules[i]
		}
	}
	return nil
}

// module checks the TDX module's signer and attributes, and gives the verdict on it.
func (t *tcbInfo) module(body []byte) (*enclaveLevel, error) {
	svn, version := int(body[0]), body[1]
	signer, attributes := body[64:112], body[112:120]
	check := func(mrsigner, want, mask hexa) error {
		if !bytes.Equal(signer, mrsigner) {
			return bad("body.mr_signer_seam", "is %x, Intel's TDX module has %x", signer, []byte(mrsigner))
		}
		if len(want) != 8 || len(mask) != 8 {
			return bad("collateral.tcb_info", "attributes of the TDX module are not 8 bytes")
		}
		for i := range mask {
			if attributes[i]&mask[i] != want[i] {
				return bad("body.seam_attributes", "are %x, Intel's TDX module has %x", attributes, []byte(want))
			}
		}
		return nil
	}
	if version == 0 {
		if t.TDXModule == nil {
			return nil, bad("collateral.tcb_info", "says nothing about the TDX module")
		}
		return nil, check(t.TDXModule.MRSIGNER, t.TDXModule.Attributes, t.TDXModule.AttributesMask)
	}
	if m := t.moduleOf(version); m != nil {
		if err := check(m.MRSIGNER, m.Attributes, m.AttributesMask); err != nil {
			return nil, err
		}
		for i := range m.Levels {
			if n := m.Levels[i].TCB.ISVSVN; n != nil && svn >= *n {
				return &m.Levels[i], nil
			}
		}
		return nil, bad("tcb_status", "the TDX module's version %d.%d is below every level that Intel lists", version, svn)
	}
	return nil, bad("body.tee_tcb_svn", "TDX module of version %d is not listed by Intel", version)
}

// match checks the quoting enclave's report against its identity.
func (id *qeIdentity) match(report []byte) (*enclaveLevel, error) {
	masked := func(field string, have, mask, want []byte) error {
		if len(mask) != len(have) || len(want) != len(have) {
			return bad("collateral.qe_identity", "%s is %d bytes, want %d", field, len(want), len(have))
		}
		for i := range have {
			if have[i]&mask[i] != want[i] {
				return bad("qe_report."+field, "is %x, the QE identity asks for %x under %x", have, want, mask)
			}
		}
		return nil
	}
	// MISCSELECT is printed as a number, most significant byte first.
	misc := []byte{report[19], report[18], report[17], report[16]}
	if err := masked("misc_select", misc, id.MiscSelectMask, id.MiscSelect); err != nil {
		return nil, err
	}
	if err := masked("attributes", report[48:64], id.AttributesMask, id.Attributes); err != nil {
		return nil, err
	}
	if !bytes.Equal(report[128:160], id.MRSIGNER) {
		return nil, bad("qe_report.mr_signer", "is %x, the QE identity has %x", report[128:160], []byte(id.MRSIGNER))
	}
	if n := int(le.Uint16(report[256:])); n != id.ISVProdID {
		return nil, bad("qe_report.isv_prod_id", "is %d, the QE identity has %d", n, id.ISVProdID)
	}
	svn := int(le.Uint16(report[258:]))
	for i := range id.Levels {
		if n := id.Levels[i].TCB.ISVSVN; n != nil && svn >= *n {
			return &id.Levels[i], nil
		}
	}
	return nil, bad("qe_report.isv_svn", "is %d, below every level that Intel lists", svn)
}

// tcbInfo finds the TCB info for a platform: of those that are current, the one
// with the highest number. It is nil when there is none for the platform.
func (p *Policy) tcbInfo(tee TEE, k *pck, now time.Time) (*tcbInfo, error) {
	var best *tcbInfo
	var reason error
	for _, s := range p.Collateral.TCBInfo {
		field := "collateral.tcb_info"
		// Before anything else: collateral that is there but damaged is never passed
		// over as belonging to another platform.
		if _, err := p.Collateral.signer(&s, field, now); err != nil {
			return nil, err
		}
		var t tcbInfo
		if err := json.Unmarshal(s.Body, &t); err != nil {
			return nil, bad(field, "%s: %v", s.Name, err)
		}
		if t.ID == "" && t.Version == 2 {
			t.ID = "SGX"
		}
		if !strings.EqualFold(t.ID, string(tee)) || !bytes.Equal(t.FMSPC, k.fmspc[:]) || !bytes.Equal(t.PCEID, k.pceID[:]) {
			continue
		}
		err := p.current(&s, field, t.IssueDate, t.NextUpdate, t.Number, now)
		switch {
		case t.Version != 2 && t.Version != 3:
			err = bad(field, "%s: version %d", s.Name, t.Version)
		case t.TCBType != 0:
			err = bad(field, "%s: TCB type %d", s.Name, t.TCBType)
		case tee == TDX:
			for _, l := range t.Levels {
				if !l.TCB.HasTDX {
					err = bad(field, "%s: a level without TDX components", s.Name)
				}
			}
		}
		if err != nil {
			reason = err
		} else if best == nil || t.Number > best.Number {
			best = &t
		}
	}
	if best != nil {
		reason = nil
	}
	return best, reason
}

// qeIdentity finds the identity of the quoting enclave in the same way.
func (p *Policy) qeIdentity(tee TEE, now time.Time) (*qeIdentity, error) {
	want := map[TEE]string{SGX: "QE", TDX: "TD_QE"}[tee]
	var best *qeIdentity
	var reason error
	for _, s := range p.Collateral.QEIdentity {
		field := "collateral.qe_identity"
		if _, err := p.Collateral.signer(&s, field, now); err != nil {
			return nil, err
		}
		var id qeIdentity
		if err := json.Unmarshal(s.Body, &id); err != nil {
			return nil, bad(field, "%s: %v", s.Name, err)
		}
		if id.ID != want {
			continue
		}
		err := p.current(&s, field, id.IssueDate, id.NextUpdate, id.Number, now)
		if id.Version != 2 {
			err = bad(field, "%s: version %d", s.Name, id.Version)
		}
		if err != nil {
			reason = err
		} else if best == nil || id.Number > best.Number {
			best = &id
		}
	}
	if best != nil {
		reason = nil
	}
	return best, reason
}

func (p *Policy) current(s *Signed, field, issued, next string, number uint32, now time.Time) error {
	from, err := time.Parse(time.RFC3339, issued)
	if err != nil {
		return bad(field, "%s: issue date %q", s.Name, issued)
	}
	to, err := time.Parse(time.RFC3339, next)
	if err != nil {
		return bad(field, "%s: next update %q", s.Name, next)
	}
	switch {
	case now.Before(from):
		return bad(field, "%s is not valid before %s", s.Name, issued)
	case now.After(to):
		return bad(field, "%s expired on %s", s.Name, next)
	case number < p.MinTCBNumber:
		return bad(field, "%s has evaluation number %d, the policy asks for at least %d", s.Name, number, p.MinTCBNumber)
	}
	signer, err := p.Collateral.signer(s, field, now)
	if err != nil {
		return err
	}
	if reason := validAt(signer, now); reason != "" {
		return bad(field, "%s: certificate %s %s", s.Name, signer.Subject.CommonName, reason)
	}
	_, err = p.Collateral.revoked(signer, intelRoot(), now, "collateral.root_ca_crl")
	return err
}

const tcbSigner = "Intel SGX TCB Signing"

// hasIntelChain says whether the collateral brings an issuer chain of its own. If
// so, that one has to do; if not, the certificates that come with the program are used.
func (c *Collateral) hasIntelChain() bool {
	return slices.ContainsFunc(c.Certificates, func(x *x509.Certificate) bool {
		return x.Subject.CommonName == tcbSigner || bytes.Equal(x.RawIssuer, intelRoot().RawSubject)
	})
}

// verify verifies the signature over the body, or over the body without white
// space, which is what Intel signs, when somebody has printed the document anew.
func (s *Signed) verify(k *ecdsa.PublicKey) bool {
	if verifyP256(k, s.Body, s.Signature) {
		return true
	}
	var b bytes.Buffer
	return json.Compact(&b, s.Body) == nil && b.Len() < len(s.Body) && verifyP256(k, b.Bytes(), s.Signature)
}

// signer finds the certificate that signed a document: one that is valid at the
// time if there is one. Intel renewed it with the same key.
func (c *Collateral) signer(s *Signed, field string, now time.Time) (*x509.Certificate, error) {
	var signer *x509.Certificate
	found := false
	certs := c.Certificates
	if !c.hasIntelChain() {
		certs = intelSigners()
	}
	for _, cert := range certs {
		if cert.Subject.CommonName != tcbSigner || cert.CheckSignatureFrom(intelRoot()) != nil {
			continue
		}
		found = true
		k, ok := cert.PublicKey.(*ecdsa.PublicKey)
		if !ok || k.Curve != elliptic.P256() || !s.verify(k) {
			continue
		}
		if signer == nil || validAt(cert, now) == "" {
			signer = cert
		}
	}
	switch {
	case signer != nil:
		return signer, nil
	case !found:
		return nil, bad("collateral.tcb_signing_chain", "no certificate %q that Intel's root issued, to verify %s", tcbSigner, s.Name)
	}
	return nil, bad(field, "%s: signature does not verify", s.Name)
}
