// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	sevabi "github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	sevverify "github.com/google/go-sev-guest/verify"
	tdxabi "github.com/google/go-tdx-guest/abi"
	tpb "github.com/google/go-tdx-guest/proto/tdx"
	tdxverify "github.com/google/go-tdx-guest/verify"
	"github.com/google/logger"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// TestConfirmTDX compares with go-tdx-guest on a real quote and on the same
// quote with one bit flipped in each 7th byte.
func TestConfirmTDX(t *testing.T) {
	logger.Init("go-tdx-guest", false, false, io.Discard)
	root := oracle.Corpus(t, "attest")
	for _, v := range []vector{
		{file: "sgx-tdx-oasis/quote_v4_tdx_ecdsa_p256.bin", at: 1725263032},
		{file: "tdx-google/tdx_prod_quote_SPR_E4.dat", at: 1688169660, trailing: true},
	} {
		b, err := os.ReadFile(filepath.Join(root, v.file))
		if err != nil {
			t.Fatal(err)
		}
		p := Policy{AllowDebug: true, AllowMissingCollateral: true, AllowTrailing: v.trailing}
		at := time.Unix(v.at, 0)
		theirs := func(b []byte) (*tpb.QuoteV4, error) {
			q, err := tdxabi.QuoteToProto(b)
			if err != nil {
				return nil, err
			}
			return q.(*tpb.QuoteV4), tdxverify.TdxQuote(q, &tdxverify.Options{Now: at})
		}
		c, err := Verify(b, p, at)
		q, oerr := theirs(b)
		if err != nil || oerr != nil {
			t.Fatalf("%s: %v, go-tdx-guest %v", v.file, err, oerr)
		}
		body := q.GetTdQuoteBody()
		for _, f := range []struct {
			name, ours string
			theirs     []byte
		}{
			{"MRTD", c.Measurement, body.GetMrTd()},
			{"REPORTDATA", c.ReportData, body.GetReportData()},
			{"RTMR0", c.TDX.RTMR[0], body.GetRtmrs()[0]},
			{"RTMR3", c.TDX.RTMR[3], body.GetRtmrs()[3]},
			{"TEE_TCB_SVN", c.TDX.TEETCBSVN, body.GetTeeTcbSvn()},
			{"MRSEAM", c.TDX.MRSEAM, body.GetMrSeam()},
			{"XFAM", c.TDX.XFAM, body.GetXfam()},
			{"TDATTRIBUTES", c.TDX.TDAttributes, body.GetTdAttributes()},
			{"MRCONFIGID", c.TDX.MRCONFIGID, body.GetMrConfigId()},
		} {
			if f.ours != hex.EncodeToString(f.theirs) {
				t.Errorf("%s: %s is %s, go-tdx-guest has %x", v.file, f.name, f.ours, f.theirs)
			}
		}
		for i := 0; i < len(b); i += 7 {
			b[i] ^= 1 << (i % 8)
			_, ours := Verify(b, p, at)
			_, other := theirs(b)
			b[i] ^= 1 << (i % 8)
			// Stricter is right: bytes that go-tdx-guest does not look at.
			if ours == nil && other != nil {
				t.Errorf("%s: byte %d flipped: accepted, go-tdx-guest refuses: %v", v.file, i, other)
			}
		}
	}
}

// TestConfirmSNP compares with go-sev-guest in the same way.
func TestConfirmSNP(t *testing.T) {
	root := oracle.Corpus(t, "attest/snp-google")
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	report, vcek := read("attestation.bin"), read("vcek.testcer")
	at := time.Unix(1725263032, 0)
	var p Policy
	p.AllowDebug = true
	p.Collateral.Add("vcek", vcek)
	theirs := func(b []byte) (*spb.Report, error) {
		r, err := sevabi.ReportToProto(b)
		if err != nil {
			return nil, err
		}
		product, err := kds.ParseProductLine("Milan")
		if err != nil {
			return nil, err
		}
		a := &spb.Attestation{Report: r, Product: product, CertificateChain: &spb.CertificateChain{VcekCert: vcek}}
		return r, sevverify.SnpAttestation(a, &sevverify.Options{DisableCertFetching: true, Now: at, Product: product})
	}
	c, err := Verify(report, p, at)
	r, oerr := theirs(report)
	if err != nil || oerr != nil {
		t.Fatalf("%v, go-sev-guest %v", err, oerr)
	}
	for _, f := range []struct {
		name, ours string
		theirs     []byte
	}{
		{"MEASUREMENT", c.Measurement, r.Measurement},
		{"REPORT_DATA", c.ReportData, r.ReportData},
		{"CHIP_ID", c.PlatformID, r.ChipId},
		{"HOST_DATA", c.SNP.HostData, r.HostData},
		{"REPORT_ID", c.SNP.ReportID, r.ReportId},
		{"ID_KEY_DIGEST", c.SNP.IDKeyDigest, r.IdKeyDigest},
	} {
		if f.ours != hex.EncodeToString(f.theirs) {
			t.Errorf("%s is %s, go-sev-guest has %x", f.name, f.ours, f.theirs)
		}
	}
	parts := kds.DecomposeTCBVersion(kds.TCBVersion(r.ReportedTcb))
	if want := (SNPTCB{Bootloader: parts.BlSpl, TEE: parts.TeeSpl, SNP: parts.SnpSpl, Microcode: parts.UcodeSpl}); c.SNP.ReportedTCB != want {
		t.Errorf("reported TCB %v, go-sev-guest %v", c.SNP.ReportedTCB, want)
	}
	for i := range report {
		report[i] ^= 1 << (i % 8)
		_, ours := Verify(report, p, at)
		_, other := theirs(report)
		report[i] ^= 1 << (i % 8)
		if ours == nil && other != nil {
			t.Errorf("byte %#x flipped: accepted, go-sev-guest refuses: %v", i, other)
		}
	}
}
