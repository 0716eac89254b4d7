// SPDX-License-Identifier: Apache-2.0

// Package attest verifies evidence of trusted environments: Intel SGX and TDX
// quotes, AMD SEV-SNP reports, and the simulation, which protects nothing. It
// takes all collateral as input and talks to nobody; it uses the standard
// library only. It also computes the measurement of an SGX enclave from its
// .sgxs stream and signs and verifies SIGSTRUCTs.
//
// [Verify] answers two questions. Is the evidence authentic: made by hardware
// that chains to its vendor's root, over exactly these bytes? That is never
// negotiable. Is it good enough: debug mode, the vendor's verdict on the
// platform's patch level, the expected measurement? That is for [Policy] to say.
//
// Sources: Intel SGX ECDSA QuoteGenReference and QuoteVerificationReference,
// Intel TDX DCAP quoting library API (appendix 3), Intel SGX/TDX Provisioning
// Certification Service API v4, Intel SDM volume 3D, AMD SEV-SNP firmware ABI
// (56860), AMD VCEK/VLEK certificate and KDS specification (57230).
package attest

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// TEE is the kind of trusted environment.
type TEE string

// Kinds of trusted environments.
const (
	SGX TEE = "sgx"
	TDX TEE = "tdx"
	SNP TEE = "sev-snp"
	Sim TEE = "sim"
)

// Intel's verdicts on a platform's patch level, best first.
const (
	UpToDate                     = "UpToDate"
	SWHardeningNeeded            = "SWHardeningNeeded"
	ConfigurationNeeded          = "ConfigurationNeeded"
	ConfigurationAndSWNeeded     = "ConfigurationAndSWHardeningNeeded"
	TDRelaunchAdvised            = "TDRelaunchAdvised" // the TDX module was updated under a running trust domain
	TDRelaunchAdvisedConfig      = "TDRelaunchAdvisedConfigurationNeeded"
	OutOfDate                    = "OutOfDate"
	OutOfDateConfigurationNeeded = "OutOfDateConfigurationNeeded"
	Revoked                      = "Revoked"
	NotEvaluated                 = "NotEvaluated"
)

// FieldError says which field of the evidence, the collateral or the policy
// failed, and why.
type FieldError struct {
	Field  string
	Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

func bad(field, format string, args ...any) error {
	return &FieldError{field, fmt.Sprintf(format, args...)}
}

// Policy says what is good enough. The zero value asks for complete collateral
// and a production environment, and takes any measurement.
type Policy struct {
	Collateral Collateral

	TEEs         []TEE    // allowed kinds; empty: all but sim
	Measurements []string // allowed MRENCLAVE, MRTD or MEASUREMENT in hex; empty: any
	Signers      []string // allowed MRSIGNER, MRSIGNERSEAM or ID_KEY_DIGEST in hex; empty: any
	ReportData   []byte   // what REPORTDATA must begin with, the rest being zero; nil: anything
	MinSVN       uint64   // least ISVSVN of an SGX enclave, GUEST_SVN of an SNP guest
	AcceptTCB    []string // accepted verdicts; empty: UpToDate and SWHardeningNeeded
	MinTCBNumber uint32   // least tcbEvaluationDataNumber of Intel's collateral
	MinSNPTCB    SNPTCB   // least level of an SNP platform, part by part
	AllowDebug   bool     // accept environments whose memory the host may read
	AllowMigrate bool     // accept SNP guests with a migration agent
	MaxVMPL      uint32   // highest VMPL of an SNP report
	AllowSim     bool     // accept the simulation: no protection at all

	// AllowMissingCollateral accepts a quote without TCB info, QE identity or
	// revocation lists: what was not evaluated is in Claims.Missing. Collateral
	// that is there is enforced in any case.
	AllowMissingCollateral bool

	// EventLog is the event log of a trust domain (CCEL): it must give the RTMRs.
	// Nil: RTMRs are claims that nobody explains.
	EventLog []byte

	// AllowEncryptedPPID accepts a quote that names its platform by an encrypted
	// PPID, when the collateral has the PCK certificate. The encrypted bytes
	// (pck_certification_data) are then the only ones of the quote that nothing vouches for.
	AllowEncryptedPPID bool

	// AllowTrailing cuts off what lies behind the end of a quote, whatever it is.
	// Zeros, which buffers of a fixed size leave there, always are.
	AllowTrailing bool
}

// Claims is what verified evidence says.
type Claims struct {
	TEE             TEE    `json:"tee"`
	Evidence        string `json:"evidence"`    // such as "quote v4"
	Measurement     string `json:"measurement"` // MRENCLAVE, MRTD, MEASUREMENT
	Signer          string `json:"signer"`      // MRSIGNER, MRSIGNERSEAM, ID_KEY_DIGEST
	ReportData      string `json:"report_data"`
	SVN             uint64 `json:"svn"`
	Debug           bool   `json:"debug"`
	Confidentiality string `json:"confidentiality"` // hardware or none
	HostIsolation   string `json:"host_isolation"`  // hardware or none

	TCBStatus  string   `json:"tcb_status"`
	TCBDate    string   `json:"tcb_date,omitempty"`
	Advisories []string `json:"advisories,omitempty"`
	Platform   string   `json:"platform"`           // FMSPC, or the SNP product
	PlatformID string   `json:"platform_id"`        // PPID or CHIP_ID, zero when masked
	Missing    []string `json:"missing,omitempty"`  // collateral that was not there
	Trailing   int      `json:"trailing,omitempty"` // bytes behind the end of a quote that were left out

	SGX *SGXClaims `json:"sgx,omitempty"`
	TDX *TDXClaims `json:"tdx,omitempty"`
	SNP *SNPClaims `json:"snp,omitempty"`
	Sim *SimClaims `json:"sim,omitempty"`
}

// maxEvidence bounds what Verify looks at.
const maxEvidence = 1 << 20

// Verify verifies evidence at a point in time. The error is a *FieldError, or
// several of them joined when the policy has several objections.
func Verify(evidence []byte, p Policy, now time.Time) (Claims, error) {
	var c Claims
	var err error
	switch {
	case len(evidence) > maxEvidence:
		return c, bad("evidence", "is %d bytes, more than any evidence is", len(evidence))
	case len(evidence) > 0 && evidence[0] == '{':
		c, err = verifySim(evidence, &p, now)
	case len(evidence) < 48:
		return c, bad("evidence", "is %d bytes, less than any evidence is", len(evidence))
	case isSNP(evidence):
		c, err = verifySNP(evidence, &p, now)
	default:
		c, err = verifyQuote(evidence, &p, now)
	}
	if err != nil {
		return Claims{}, err
	}
	if err := p.judge(&c); err != nil {
		return Claims{}, err
	}
	if err := p.judgeEventLog(&c); err != nil {
		return Claims{}, err
	}
	return c, nil
}

// judge applies what the policy asks of any evidence.
func (p *Policy) judge(c *Claims) error {
	var errs []error
	object := func(field, format string, args ...any) { errs = append(errs, bad(field, format, args...)) }
	if len(p.TEEs) > 0 && !slices.Contains(p.TEEs, c.TEE) {
		object("tee", "is %s, the policy allows %v", c.TEE, p.TEEs)
	}
	if c.TEE == Sim && !p.AllowSim {
		object("tee", "is a simulation, which protects nothing from its host")
	}
	if len(p.Measurements) > 0 && !containsFold(p.Measurements, c.Measurement) {
		object("measurement", "is %s, the policy allows %s", c.Measurement, strings.Join(p.Measurements, ", "))
	}
	if len(p.Signers) > 0 && !containsFold(p.Signers, c.Signer) {
		object("signer", "is %s, the policy allows %s", c.Signer, strings.Join(p.Signers, ", "))
	}
	if p.ReportData != nil {
		want := make([]byte, 64)
		copy(want, p.ReportData)
		if len(p.ReportData) > 64 || hex.EncodeToString(want) != c.ReportData {
			object("report_data", "is %s, expected %x", c.ReportData, p.ReportData)
		}
	}
	if c.SVN < p.MinSVN {
		object("svn", "is %d, the policy asks for at least %d", c.SVN, p.MinSVN)
	}
	if c.Debug && !p.AllowDebug && c.TEE != Sim {
		object("debug", "the environment is in debug mode: its host can read its memory")
	}
	accept := p.AcceptTCB
	if len(accept) == 0 {
		accept = []string{UpToDate, SWHardeningNeeded}
	}
	if p.AllowMissingCollateral {
		accept = append(accept[:len(accept):len(accept)], NotEvaluated)
	}
	if (c.TEE == SGX || c.TEE == TDX) && !slices.Contains(accept, c.TCBStatus) {
		reason := fmt.Sprintf("is %s, accepted are %s", c.TCBStatus, strings.Join(accept, ", "))
		if len(c.Advisories) > 0 {
			reason += "; see " + strings.Join(c.Advisories, ", ")
		}
		object("tcb_status", "%s", reason)
	}
	return errors.Join(errs...)
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(x string) bool { return strings.EqualFold(x, s) })
}

// Fields lists the names of the fields that an error of Verify is about.
func Fields(err error) []string {
	var out []string
	var walk func(error)
	walk = func(err error) {
		switch e := err.(type) { //nolint:errorlint // this walks the tree of wrapped errors itself
		case *FieldError:
			out = append(out, e.Field)
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				walk(err)
			}
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
		}
	}
	walk(err)
	return out
}

var le = binary.LittleEndian

// reader takes fields from the front of a byte string. After the first field
// that is not there, err names it and everything reads as empty.
type reader struct {
	b   []byte
	off int
	err error
}

func (r *reader) take(field string, n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.b)-r.off) {
		r.err = bad(field, "is cut short: %d bytes at offset %d, %d are left", n, r.off, len(r.b)-r.off)
	}
	if r.err != nil {
		return make([]byte, max(0, min(n, 1024)))
	}
	b := r.b[r.off : r.off+n]
	r.off += n
	return b
}

func (r *reader) u16(field string) uint16 { return le.Uint16(r.take(field, 2)) }
func (r *reader) u32(field string) uint32 { return le.Uint32(r.take(field, 4)) }

func (r *reader) rest() []byte { return r.b[r.off:] }

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
