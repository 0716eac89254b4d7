// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
)

// TestRelaunch gives a trust domain whose module was updated under it.
func TestRelaunch(t *testing.T) {
	for _, tt := range []struct {
		name     string
		svn, now []byte // TEE_TCB_SVN, TEE_TCB_SVN_2
		size     int
		qe       uint16
		edit     func(*intel)
		status   string
	}{
		{"up to date", []byte{5, 1, 5}, []byte{5, 1, 5}, tdReport15, 8, nil, UpToDate},
		{"updated", []byte{3, 1, 5}, []byte{5, 1, 5}, tdReport15, 8, nil, TDRelaunchAdvised},
		{"updated to version 0", []byte{3, 1, 5}, []byte{5, 0, 5}, tdReport15, 8, nil, TDRelaunchAdvised},
		{"not updated", []byte{3, 1, 5}, []byte{3, 1, 5}, tdReport15, 8, nil, OutOfDate},
		{"loader not updated", []byte{3, 1, 5}, []byte{5, 1, 4}, tdReport15, 8, nil, OutOfDate},
		{"unknown module", []byte{3, 1, 5}, []byte{5, 7, 5}, tdReport15, 8, nil, OutOfDate},
		{"report of TDX 1.0", []byte{3, 1, 5}, nil, tdReport10, 8, nil, OutOfDate},
		{"QE out of date", []byte{3, 1, 5}, []byte{5, 1, 5}, tdReport15, 7, nil, OutOfDate},
		{"needs configuration", []byte{3, 1, 5}, []byte{5, 1, 5}, tdReport15, 8, func(v *intel) {
			v.tcbInfo["tcbLevels"].([]any)[0].(map[string]any)["tcbStatus"] = ConfigurationNeeded
		}, TDRelaunchAdvisedConfig},
		{"needs configuration and is out of date", []byte{3, 1, 5}, []byte{3, 1, 5}, tdReport15, 8, func(v *intel) {
			v.tcbInfo["tcbLevels"].([]any)[0].(map[string]any)["tcbStatus"] = ConfigurationNeeded
		}, OutOfDateConfigurationNeeded},
	} {
		v := newIntel(t, TDX)
		if tt.edit != nil {
			tt.edit(v)
		}
		b := v.quote(5, TDX, tt.size, tt.qe, func(b []byte) {
			copy(b, tt.svn)
			if tt.size == tdReport15 {
				copy(b[584:], tt.now)
			}
		})
		p := Policy{Collateral: v.collateral(), AcceptTCB: []string{UpToDate, tt.status}}
		c, err := Verify(b, p, testNow)
		if err != nil || c.TCBStatus != tt.status {
			t.Errorf("%s: %s, %v; want %s", tt.name, c.TCBStatus, err, tt.status)
		}
		p.AcceptTCB = nil
		if _, err := Verify(b, p, testNow); (err == nil) != (tt.status == UpToDate) {
			t.Errorf("%s: by default: %v", tt.name, err)
		}
	}
}

// TestPCKLookup gives quotes that name their platform instead of giving its certificate.
func TestPCKLookup(t *testing.T) {
	for _, version := range []uint16{3, 4} {
		v := newIntel(t, SGX)
		name := func(ppid []byte) []byte {
			b := append(slices.Clone(ppid), make([]byte, 20)...)
			if version > 3 {
				b[len(ppid)+16] = 11 // the certificate's PCE; version 3 has it in its header, too
			}
			return b
		}
		ppid := []byte("ppid of 16 bytes")
		der := func(certs ...*x509.Certificate) (all []byte) {
			for _, c := range certs {
				all = append(all, c.Raw...)
			}
			return all
		}
		for _, tt := range []struct {
			name      string
			kind      uint16
			data      []byte
			certs     []byte
			encrypted bool
			field     string
		}{
			{"PPID", certPPID, name(ppid), der(v.pck, v.ca), false, ""},
			{"another PPID", certPPID, name([]byte("another 16 bytes")), der(v.pck, v.ca), false, "pck_certification_data.ppid"},
			{"cut", certPPID, name(ppid)[:35], der(v.pck, v.ca), false, "pck_certification_data.size"},
			{"encrypted, allowed", certPPID3072, name(make([]byte, 384)), der(v.pck, v.ca), true, ""},
			{"encrypted, 2048 bits", certPPID2048, name(make([]byte, 256)), der(v.pck, v.ca), true, ""},
			{"encrypted", certPPID3072, name(make([]byte, 384)), der(v.pck, v.ca), false, "pck_certification_data.type"},
			{"certificate", certPCKLeaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.pck.Raw}), der(v.ca), false, ""},
			{"certificate without its issuer", certPCKLeaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.pck.Raw}), nil, false, "collateral.pck_chain"},
			{"no certificate", certPPID, name(ppid), der(v.ca), false, "pck_certification_data.type"},
			{"unknown", 7, name(ppid), der(v.pck, v.ca), false, "pck_certification_data.type"},
		} {
			v.certType, v.certData = tt.kind, tt.data
			b := v.quote(version, SGX, enclaveReport, 8, nil)
			p := Policy{Collateral: v.collateral(), AllowEncryptedPPID: tt.encrypted}
			p.Collateral.Add("pck.der", tt.certs)
			c, err := Verify(b, p, testNow)
			if tt.field != "" {
				if f := Fields(err); len(f) != 1 || f[0] != tt.field {
					t.Errorf("v%d %s: %v, want %s", version, tt.name, err, tt.field)
				}
				continue
			}
			if err != nil || c.TCBStatus != UpToDate || len(c.Missing) > 0 {
				t.Errorf("v%d %s: %+v, %v", version, tt.name, c, err)
				continue
			}
			free := bytes.Index(b, make([]byte, 200)) // the encrypted PPID of this test
			for i := 0; i < len(b); i += 23 {
				b[i] ^= 1 << (i % 8)
				_, err := Verify(b, p, testNow)
				b[i] ^= 1 << (i % 8)
				if err == nil && (!tt.encrypted || i < free || i >= len(b)-20) {
					t.Errorf("v%d %s: byte %d flipped: accepted", version, tt.name, i)
				}
			}
		}
	}
}

// TestChainInDER gives a chain in DER, and flips bits of it.
func TestChainInDER(t *testing.T) {
	v := newIntel(t, SGX)
	v.certType, v.certData = certPCKChain, slices.Concat(v.pck.Raw, v.ca.Raw, v.root.Raw)
	b := v.quote(3, SGX, enclaveReport, 8, nil)
	p := Policy{Collateral: v.collateral()}
	if _, err := Verify(b, p, testNow); err != nil {
		t.Fatal(err)
	}
	for i := len(b) - len(v.certData); i < len(b); i += 3 {
		b[i] ^= 1 << (i % 8)
		if _, err := Verify(b, p, testNow); err == nil || len(Fields(err)) == 0 {
			t.Errorf("byte %d of the chain flipped: %v", i-len(b)+len(v.certData), err)
		}
		b[i] ^= 1 << (i % 8)
	}
}

// TestCollateralWrappings gives the same collateral as tools leave it behind.
func TestCollateralWrappings(t *testing.T) {
	v := newIntel(t, SGX)
	q := v.quote(3, SGX, enclaveReport, 8, nil)
	tcb, qe := v.signed("tcbInfo", v.tcbInfo), v.signed("enclaveIdentity", v.qeIdentity)
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.tcb.Raw})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.root.Raw}))
	encoded := strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B").Replace(chain)
	form := strings.NewReplacer("\n", "%0A", " ", "+", "+", "%2B").Replace(chain)
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, tcb, "", "    "); err != nil {
		t.Fatal(err)
	}
	object := func(m map[string]any) []byte {
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	list := func(b []byte) (out []int) {
		for _, x := range b {
			out = append(out, int(x))
		}
		return out
	}
	b64 := base64.StdEncoding.EncodeToString
	lines := func(s string) (out string) {
		for len(s) > 64 {
			out, s = out+s[:64]+"\n", s[64:]
		}
		return out + s + "\n"
	}
	crls := [][]byte{v.crlCA, v.crlRoot}
	for _, tt := range []struct {
		name  string
		files [][]byte
	}{
		{"HTTP responses", [][]byte{
			[]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTCB-Info-Issuer-Chain: " + encoded + "\r\n\r\n" + string(tcb)),
			[]byte("HTTP/2 200\nsgx-enclave-identity-issuer-chain: " + encoded + "\n\n" + string(qe)), crls[0], crls[1],
		}},
		{"headers in a file of their own", [][]byte{tcb, qe, []byte("Request-ID: 1\r\nSGX-PCK-Certificate-Issuer-Chain: " + form + "\r\n"), crls[0], crls[1]}},
		{"printed anew, BOM", [][]byte{pretty.Bytes(), append([]byte("\xef\xbb\xbf"), qe...), []byte(chain), []byte(b64(crls[0])), []byte(lines(b64(crls[1])))}},
		{"object of objects", [][]byte{object(map[string]any{
			"collateral": map[string]any{"tcb_info": json.RawMessage(tcb), "qe_identity": json.RawMessage(qe), "certs": b64([]byte(chain)), "crls": []any{list(crls[0]), b64(crls[1])}},
		})}},
		{"objects as text", [][]byte{object(map[string]any{"tcbInfo": string(tcb), "enclaveIdentity": string(qe), "chain": encoded, "rootCaCrl": hex.EncodeToString(crls[1]), "pckCrl": list(crls[0])})}},
		{"list", [][]byte{object(map[string]any{"a": []any{json.RawMessage(tcb), json.RawMessage(qe)}}), []byte(`["` + encoded + `"]`), crls[0], crls[1]}},
		{"with the quote beside it", [][]byte{tcb, qe, []byte(chain), crls[0], crls[1], q}},
		{"CRLs in one file of DER certificates", [][]byte{tcb, qe, append(bytes.Clone(v.tcb.Raw), v.root.Raw...), crls[0], crls[1]}},
	} {
		var p Policy
		for i, f := range tt.files {
			if !p.Collateral.Add("file", f) && !isQuote(f) {
				t.Errorf("%s: file %d is not known as collateral", tt.name, i)
			}
		}
		if c, err := Verify(q, p, testNow); err != nil || c.TCBStatus != UpToDate || len(c.Missing) > 0 {
			t.Errorf("%s: %+v, %v", tt.name, c, err)
		}
	}
	// A document printed anew with another value is not the same.
	var p Policy
	p.Collateral.Add("tcb", bytes.Replace(pretty.Bytes(), []byte(UpToDate), []byte(Revoked), 1))
	p.Collateral.Add("chain", []byte(chain))
	if _, err := Verify(q, p, testNow); len(Fields(err)) == 0 || Fields(err)[0] != "collateral.tcb_info" {
		t.Errorf("changed: %v", err)
	}
	deep := strings.Repeat(`{"a":`, 100) + `"` + strings.Repeat("x", 100) + `"` + strings.Repeat("}", 100)
	if p.Collateral.Add("deep", []byte(deep)) {
		t.Error("deep nesting is no collateral")
	}
}

// TestCertificateTable gives a VCEK as configfs-tsm does, in a table.
func TestCertificateTable(t *testing.T) {
	tcb := SNPTCB{Bootloader: 3, TEE: 1, SNP: 20, Microcode: 200}
	chip := bytes.Repeat([]byte{7}, 64)
	key, certs := amd(t, "Genoa", "VCEK", tcb, chip)
	b := snpReport(t, key, 3, "VCEK", "Genoa", tcb, chip)
	id := func(i int) []byte {
		raw, err := hex.DecodeString(snpTableIDs[i])
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	table := le.AppendUint32(le.AppendUint32(id(0), 72), uint32(len(certs[0].Raw)))
	table = le.AppendUint32(le.AppendUint32(append(table, id(2)...), uint32(72+len(certs[0].Raw))), uint32(len(certs[1].Raw)))
	table = append(append(append(table, make([]byte, 24)...), certs[0].Raw...), certs[1].Raw...)
	var p Policy
	if !p.Collateral.Add("auxblob", table) {
		t.Fatal("not known as collateral")
	}
	if _, err := Verify(b, p, testNow); err != nil {
		t.Error(err)
	}
	p = Policy{}
	if !p.Collateral.Add("auxblob", table[:100]) {
		t.Fatal("damaged, but not known as collateral")
	}
	if _, err := Verify(b, p, testNow); len(Fields(err)) == 0 || Fields(err)[0] != "collateral" {
		t.Errorf("damaged: %v", err)
	}
}

func TestBinary(t *testing.T) {
	v := newIntel(t, SGX)
	q := v.quote(3, SGX, enclaveReport, 8, nil)
	p := Policy{Collateral: v.collateral()}
	wrap := func(s string, n int, end string) (out string) {
		for len(s) > n {
			out, s = out+s[:n]+end, s[n:]
		}
		return out + s + end
	}
	h, b64 := hex.EncodeToString(q), base64.StdEncoding.EncodeToString(q)
	for name, text := range map[string]string{
		"binary": string(q), "hex": h, "upper": strings.ToUpper(h) + "\n", "0x": "0x" + h + "\r\n", "xxd": wrap(h, 60, "\n"), "base64": b64, "base64 in lines": wrap(b64, 76, "\n"), "base64 in DOS lines": wrap(b64, 64, "\r\n"),
		"unpadded": strings.TrimRight(b64, "=") + "\n", "URL": base64.URLEncoding.EncodeToString(q),
	} {
		b, err := Binary([]byte(text))
		if err != nil || !bytes.Equal(b, q) {
			t.Errorf("%s: %v", name, err)
		}
		data := []byte(text)
		for i := 0; i < len(data); i += 11 {
			bit := byte(1) << (i % 8)
			if i%7 == 0 {
				bit = 0x20 // the case of letters
			}
			data[i] ^= bit
			if b, err := Binary(data); err == nil {
				if _, err := Verify(b, p, testNow); err == nil {
					t.Errorf("%s: accepted with byte %d (%q) flipped by %#x", name, i, text[i], bit)
				}
			} else if len(Fields(err)) != 1 {
				t.Errorf("%s: %v", name, err)
			}
			data[i] ^= bit
		}
	}
	for _, bad := range []string{" " + h, h + "\n\n", h[:100] + "\n" + h[100:], strings.Repeat("text ", 30)} {
		if _, err := Binary([]byte(bad)); err == nil {
			t.Errorf("%.20q… was accepted", bad)
		}
	}
}
