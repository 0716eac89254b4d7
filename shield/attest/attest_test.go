// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/oracle"
)

func collateral(t testing.TB, dir string) Collateral {
	t.Helper()
	var c Collateral
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no collateral in %s: %v", dir, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			c.Add(filepath.Base(f), b)
		}
	}
	return c
}

// vector is one piece of real evidence.
type vector struct {
	file, collateral string
	at               int64
	trailing         bool   // has bytes behind its end, which are to be ignored
	field            string // "": verifies
	tcb              string
}

var vectorTable = []vector{
	{file: "sgx-tdx-oasis/quote_v3_ecdsa_p256_pck_chain.bin", collateral: "sgx-tdx-oasis", at: 1671497404, tcb: SWHardeningNeeded},
	{file: "sgx-tdx-oasis/quote_v4_tdx_ecdsa_p256.bin", collateral: "sgx-tdx-oasis", at: 1725263032, tcb: UpToDate},
	{file: "tdx-google/tdx_prod_quote_SPR_E4.dat", at: 1688169660, trailing: true, tcb: NotEvaluated},
	{file: "tdx-google/ccel/cos-113-tdx-quote.dat", at: 1725263032, tcb: NotEvaluated},
	{file: "tdx-google/quote_v5_sample.dat", at: 1770000000, tcb: NotEvaluated},
	{file: "snp-google/attestation.bin", collateral: "snp-google", at: 1725263032, tcb: Endorsed},
	{file: "sgx-tdx-oasis/quote_v3_ecdsa_p256_eppid.bin", collateral: "sgx-tdx-oasis", at: 1671497404, field: "pck_certification_data.type"},
	{file: "sgx-tdx-oasis/quote_v4_tdx_ecdsa_p256_trailing.bin", collateral: "sgx-tdx-oasis", at: 1725263032, field: "trailing"},
	{file: "sgx-tdx-oasis/quote_v4_tdx_ecdsa_p256_out_of_date.bin", collateral: "sgx-tdx-oasis", at: 1687091776, field: "tcb_status"},
	// Collateral from before and after its time, and the certificates.
	{file: "sgx-tdx-oasis/quote_v3_ecdsa_p256_pck_chain.bin", collateral: "sgx-tdx-oasis", at: 1671000000, field: "collateral.tcb_info"},
	{file: "sgx-tdx-oasis/quote_v3_ecdsa_p256_pck_chain.bin", collateral: "sgx-tdx-oasis", at: 1675000000, field: "collateral.tcb_info"},
	{file: "sgx-tdx-oasis/quote_v3_ecdsa_p256_pck_chain.bin", collateral: "sgx-tdx-oasis", at: 1500000000, field: "pck_certification_data"},
	{file: "snp-google/attestation.bin", collateral: "snp-google", at: 1500000000, field: "vcek"},
	{file: "snp-google/attestation.bin", at: 1725263032, field: "collateral.vcek"},
	{file: "tdx-google/tdx_prod_quote_SPR_E4.dat", at: 1688169660, field: "trailing"},
}

// open gives evidence and the policy that asks for authenticity alone.
func (v *vector) open(t testing.TB) ([]byte, Policy, time.Time) {
	t.Helper()
	root := oracle.Corpus(t, "attest")
	b, err := os.ReadFile(filepath.Join(root, v.file))
	if err != nil {
		t.Fatal(err)
	}
	p := Policy{AllowDebug: true, AllowMissingCollateral: true, MaxVMPL: 3, AllowTrailing: v.trailing}
	if v.collateral != "" {
		p.Collateral = collateral(t, filepath.Join(root, v.collateral))
	}
	return b, p, time.Unix(v.at, 0)
}

func TestConfirmVectors(t *testing.T) {
	for _, v := range vectorTable {
		b, p, at := v.open(t)
		c, err := Verify(b, p, at)
		switch {
		case v.field == "" && err != nil:
			t.Errorf("%s: %v", v.file, err)
		case v.field == "" && c.TCBStatus != v.tcb:
			t.Errorf("%s: TCB status %s, want %s", v.file, c.TCBStatus, v.tcb)
		case v.field != "" && !slices.Contains(Fields(err), v.field):
			t.Errorf("%s at %d: %v, want an error about %s", v.file, v.at, err, v.field)
		}
	}
}

// TestConfirmBitFlips flips one bit in each byte of each vector that verifies.
// ATTEST_ALL_BITS=1 flips each of the eight.
func TestConfirmBitFlips(t *testing.T) {
	for _, v := range vectorTable {
		if v.field != "" {
			continue
		}
		b, p, at := v.open(t)
		if v.trailing {
			q, err := parseQuote(b, true)
			if err != nil {
				t.Fatal(err)
			}
			b = b[:len(b)-q.trailing]
			p.AllowTrailing = false
		}
		fields := map[string]int{}
		for i := range b {
			for bit := range 8 {
				if os.Getenv("ATTEST_ALL_BITS") == "" && bit != i%8 {
					continue
				}
				b[i] ^= 1 << bit
				_, err := Verify(b, p, at)
				b[i] ^= 1 << bit
				if err == nil {
					t.Errorf("%s: accepted with bit %d of byte %#x flipped", v.file, bit, i)
					continue
				}
				f := Fields(err)
				if len(f) == 0 || f[0] == "" {
					t.Errorf("%s: byte %#x: error names no field: %v", v.file, i, err)
					continue
				}
				fields[f[0]]++
			}
		}
		for n := range len(b) {
			if n%37 != 0 {
				continue
			}
			if allZero(b[n:]) {
				continue // the zeros behind the end are not part of it
			}
			if _, err := Verify(b[:n], p, at); err == nil || len(Fields(err)) == 0 {
				t.Errorf("%s: cut to %d bytes: %v", v.file, n, err)
			}
		}
		t.Logf("%s: %v", v.file, fields)
	}
}

// TestConfirmCollateralFlips flips bits of the collateral: what is signed is refused when it is changed.
func TestConfirmCollateralFlips(t *testing.T) {
	root := oracle.Corpus(t, "attest")
	v := vectorTable[0]
	b, p, at := v.open(t)
	p.AllowMissingCollateral = false
	for _, name := range []string{"tcb_info_v3_fmspc_00606A000000.json", "qe_identity_v2.json", "tcb_info_v3_fmspc_00606A000000_certs.pem"} {
		data, err := os.ReadFile(filepath.Join(root, "sgx-tdx-oasis", name))
		if err != nil {
			t.Fatal(err)
		}
		for i := range data {
			if i%3 != 0 {
				continue
			}
			bit := byte(1) << (i % 8)
			data[i] ^= bit
			var c Collateral
			for _, f := range []string{"tcb_info_v3_fmspc_00606A000000.json", "qe_identity_v2.json", "tcb_info_v3_fmspc_00606A000000_certs.pem"} {
				d := data
				if f != name {
					if d, err = os.ReadFile(filepath.Join(root, "sgx-tdx-oasis", f)); err != nil {
						t.Fatal(err)
					}
				}
				c.Add(f, d)
			}
			p.Collateral = c
			_, err := Verify(b, p, at)
			data[i] ^= bit
			// White space, the case of keys and of hexadecimal digits, and text
			// around certificates carry nothing; the root comes with the verifier.
			if err == nil && !harmless(t, name, data, i, bit) {
				t.Errorf("%s: accepted with byte %d (%q) flipped by %#x", name, i, data[i], bit)
			}
		}
	}
	bad, err := os.ReadFile(filepath.Join(root, "sgx-tdx-oasis", "tcb_info_v3_fmspc_00606A000000_certs_bad.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var c Collateral
	for _, f := range []string{"tcb_info_v3_fmspc_00606A000000.json", "qe_identity_v2.json"} {
		d, err := os.ReadFile(filepath.Join(root, "sgx-tdx-oasis", f))
		if err != nil {
			t.Fatal(err)
		}
		c.Add(f, d)
	}
	c.Add("bad", bad)
	p.Collateral = c
	if _, err := Verify(b, p, at); !slices.Contains(Fields(err), "collateral.tcb_signing_chain") {
		t.Errorf("bad certificates: %v", err)
	}
}

func harmless(t *testing.T, name string, data []byte, i int, bit byte) bool {
	if strings.HasSuffix(name, ".pem") {
		block, rest := pem.Decode(data)
		if block == nil {
			t.Fatal("no certificate")
		}
		return i >= len(data)-len(rest) // only the first certificate is used
	}
	was, is := data[i], data[i]^bit
	if strings.EqualFold(string(was), string(is)) {
		return i > strings.LastIndex(string(data), `"signature"`) || i < 20
	}
	return strings.ContainsRune(" \n\r\t", rune(was)) && strings.ContainsRune(" \n\r\t", rune(is))
}

// TestConfirmEventLog replays a real log against its quote, and the log with one
// byte changed in each event's digest.
func TestConfirmEventLog(t *testing.T) {
	v := vectorTable[3]
	b, p, at := v.open(t)
	log, err := os.ReadFile(filepath.Join(oracle.Corpus(t, "attest"), "tdx-google", "ccel", "ccel_data.dat"))
	if err != nil {
		t.Fatal(err)
	}
	p.EventLog = log
	c, err := Verify(b, p, at)
	if err != nil || c.TDX.Events == 0 {
		t.Fatalf("%+v, %v", c.TDX, err)
	}
	t.Logf("%d events", c.TDX.Events)
	refused := 0
	for i := 0; i < 20000; i += 11 {
		log[i] ^= 1 << (i % 8)
		if _, err := Verify(b, p, at); err != nil {
			refused++
			if f := Fields(err); len(f) != 1 || !strings.HasPrefix(f[0], "event_log") && !strings.HasPrefix(f[0], "body.rtmr") {
				t.Errorf("byte %d: %v", i, err)
			}
		}
		log[i] ^= 1 << (i % 8)
	}
	if refused == 0 {
		t.Error("no change was noticed")
	}
	p.EventLog = nil
	b, p, at = vectorTable[0].open(t)
	p.EventLog = log
	if _, err := Verify(b, p, at); len(Fields(err)) == 0 || Fields(err)[0] != "event_log" {
		t.Errorf("for an SGX quote: %v", err)
	}
}

func FuzzEventLog(f *testing.F) {
	head := append(make([]byte, 28), 33, 0, 0, 0)
	head = append(head, "Spec ID Event03\x00"...)
	head = append(head, make([]byte, 8)...)
	head = append(head, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0)
	f.Add(append(head, append([]byte{1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0x0c, 0}, make([]byte, 60)...)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := ReplayEventLog(b); err != nil && len(Fields(err)) == 0 {
			t.Errorf("error names no field: %v", err)
		}
	})
}

func TestPolicy(t *testing.T) {
	b, p, at := vectorTable[5].open(t) // an SNP report in debug mode
	strict := Policy{Collateral: p.Collateral}
	for _, tt := range []struct {
		name string
		edit func(*Policy)
		want []string
	}{
		{"strict", func(*Policy) {}, []string{"debug"}},
		{"debug", func(p *Policy) { p.AllowDebug = true }, nil},
		{"tee", func(p *Policy) { p.AllowDebug, p.TEEs = true, []TEE{SGX} }, []string{"tee"}},
		{"everything", func(p *Policy) {
			p.Measurements, p.Signers, p.ReportData, p.MinSVN = []string{"00"}, []string{"00"}, []byte{9}, 7
		}, []string{"measurement", "signer", "report_data", "svn", "debug"}},
		{"report data", func(p *Policy) { p.AllowDebug, p.ReportData = true, []byte{1, 2, 3, 4, 5} }, nil},
		{"microcode", func(p *Policy) { p.AllowDebug, p.MinSNPTCB = true, SNPTCB{Microcode: 255} }, []string{"reported_tcb"}},
	} {
		q := strict
		tt.edit(&q)
		_, err := Verify(b, q, at)
		if got := Fields(err); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v (%v), want %v", tt.name, got, err, tt.want)
		}
	}
	b, p, at = vectorTable[4].open(t)
	p.AllowMissingCollateral = false
	if _, err := Verify(b, p, at); err == nil || !strings.HasPrefix(Fields(err)[0], "collateral.") {
		t.Errorf("without collateral: %v", err)
	}
}

func TestSim(t *testing.T) {
	key, err := NewSimKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1700000000, 0)
	b, err := SimEvidence(key, [48]byte{1}, [64]byte{2}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(b, Policy{AllowDebug: true}, now); !slices.Equal(Fields(err), []string{"tee"}) {
		t.Errorf("by default: %v", err)
	}
	p := Policy{AllowSim: true}
	c, err := Verify(b, p, now)
	if err != nil || c.Confidentiality != "none" || c.HostIsolation != "none" || !c.Debug || c.Sim.Taint != "sim" || c.Measurement[:2] != "01" || c.ReportData[:2] != "02" {
		t.Errorf("%+v, %v", c, err)
	}
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			if _, err := Verify(b, p, now); err == nil || len(Fields(err)) == 0 {
				t.Errorf("bit %d of byte %d flipped: %v", bit, i, err)
			}
			b[i] ^= 1 << bit
		}
	}
}

func TestSigstruct(t *testing.T) {
	key := testRSA(t)
	want := Sigstruct{
		Date: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), SWDefined: 5, MiscMask: ^uint32(0), Attributes: [16]byte{4}, AttributesMask: [16]byte{0xff},
		EnclaveHash: sha256.Sum256([]byte("enclave")), ISVProdID: 77, ISVSVN: 3,
	}
	b, err := want.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := VerifySigstruct(b)
	if err != nil {
		t.Fatal(err)
	}
	want.MRSIGNER, _ = MRSIGNER(&key.PublicKey)
	if *got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	flipAll(t, b)

	dir := oracle.Corpus(t, "attest/sgx-tdx-oasis")
	b, err = os.ReadFile(filepath.Join(dir, "sig1.sigstruct.bin"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := VerifySigstruct(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v %x", s, s.MRSIGNER)
	flipAll(t, b)
}

func flipAll(t *testing.T, b []byte) {
	t.Helper()
	for i := range b {
		b[i] ^= 1 << (i % 8)
		_, err := VerifySigstruct(b)
		b[i] ^= 1 << (i % 8)
		var fe *FieldError
		if !errors.As(err, &fe) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
}

// testRSA makes a key of 3072 bits with exponent 3.
func testRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	three, one := big.NewInt(3), big.NewInt(1)
	prime := func() *big.Int {
		for {
			p, err := rand.Prime(rand.Reader, 1536)
			if err != nil {
				t.Fatal(err)
			}
			if new(big.Int).Mod(new(big.Int).Sub(p, one), three).Sign() != 0 {
				return p
			}
		}
	}
	for {
		p, q := prime(), prime()
		n := new(big.Int).Mul(p, q)
		if n.BitLen() != 3072 {
			continue
		}
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 3}, D: new(big.Int).ModInverse(three, phi), Primes: []*big.Int{p, q}}
		k.Precompute()
		return k
	}
}

func TestMRENCLAVE(t *testing.T) {
	rec := func(tag string, fill func(b []byte)) string {
		b := make([]byte, 64)
		copy(b, tag)
		fill(b)
		return string(b)
	}
	create := rec("ECREATE", func(b []byte) { le.PutUint32(b[8:], 1); le.PutUint64(b[12:], 8192) })
	add := rec("EADD", func(b []byte) { b[16] = 7 })
	extend := rec("EEXTEND", func(b []byte) { le.PutUint64(b[8:], 256) }) + strings.Repeat("x", 256)
	skip := rec("UNMEASRD", func([]byte) {}) + strings.Repeat("y", 256)
	want := sha256.Sum256([]byte(create + add + extend))
	for _, tt := range []struct {
		name, stream, field string
	}{
		{"plain", create + add + extend, ""},
		{"unmeasured", create + add + skip + extend, ""},
		{"empty", "", "sgxs.record[0]"},
		{"no ECREATE", add, "sgxs.record[0]"},
		{"second ECREATE", create + create, "sgxs.record[1]"},
		{"no page", create + extend, "sgxs.record[1]"},
		{"cut", create + add + extend[:100], "sgxs.record[2]"},
		{"cut record", create + add[:10], "sgxs.record[1]"},
		{"unknown", create + rec("EFOO", func([]byte) {}), "sgxs.record[1]"},
		{"outside", create + rec("EADD", func(b []byte) { le.PutUint64(b[8:], 8192) }), "sgxs.record[1]"},
	} {
		got, err := MRENCLAVE(strings.NewReader(tt.stream))
		if tt.field == "" && (err != nil || got != want) {
			t.Errorf("%s: %x, %v, want %x", tt.name, got, err, want)
		}
		if f := Fields(err); tt.field != "" && (len(f) != 1 || f[0] != tt.field) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.field)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, v := range vectorTable[:6] {
		if root := os.Getenv("PALISADE_CORPUS"); root != "" {
			if b, err := os.ReadFile(filepath.Join(root, "attest", v.file)); err == nil {
				f.Add(b)
			}
		}
	}
	key, _ := NewSimKey(make([]byte, 32))
	b, _ := SimEvidence(key, [48]byte{}, [64]byte{}, time.Unix(0, 0))
	f.Add(b)
	h, _ := hex.DecodeString("0300020000000000")
	f.Add(append(h, make([]byte, 1000)...))
	f.Add(append([]byte{2, 0, 0, 0}, make([]byte, 1180)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Verify(b, Policy{AllowMissingCollateral: true, AllowDebug: true}, time.Unix(1700000000, 0))
		if err == nil && c.TEE == Sim {
			t.Error("simulated evidence accepted")
		}
		if err != nil && len(Fields(err)) == 0 {
			t.Errorf("error names no field: %v", err)
		}
	})
}

func FuzzCollateral(f *testing.F) {
	f.Add([]byte(`{"tcbInfo":{"id":"SGX","tcbLevels":[{"tcb":{"pcesvn":1}}]},"signature":"00"}`))
	f.Add(intelRootPEM)
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Collateral
		c.Add("x", b)
		k := &pck{}
		p := Policy{Collateral: c}
		// Unsigned collateral is never used, whatever it says.
		if info, _ := p.tcbInfo(SGX, k, time.Unix(1700000000, 0)); info != nil {
			t.Error("unsigned TCB info was used")
		}
		for _, s := range c.TCBInfo {
			var ti tcbInfo
			if json.Unmarshal(s.Body, &ti) == nil {
				ti.level(&quote{tee: SGX}, k)
				_, _ = ti.module(make([]byte, tdReport10))
			}
		}
		for _, s := range c.QEIdentity {
			var id qeIdentity
			if json.Unmarshal(s.Body, &id) == nil {
				_, _ = id.match(make([]byte, enclaveReport))
			}
		}
	})
}
