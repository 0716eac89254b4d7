// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"time"
)

// Layout of a SIGSTRUCT. Source: Intel SDM volume 3D, table 38-21.
const (
	SigstructSize = 1808

	sigModulus   = 128
	sigExponent  = 512
	sigSignature = 516
	sigBody      = 900
	sigBodyEnd   = 1028
	sigQ1        = 1040
	sigQ2        = 1424
	sigNumber    = 384 // an RSA-3072 number
)

var (
	sigHeader1 = [16]byte{0x06, 0, 0, 0, 0xe1, 0, 0, 0, 0, 0, 0x01, 0, 0, 0, 0, 0}
	sigHeader2 = [16]byte{0x01, 0x01, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 0x01, 0, 0, 0}
)

// Sigstruct is the identity that a vendor gives an enclave.
type Sigstruct struct {
	Vendor         uint32    `json:"vendor"` // 0x8086 for Intel, else 0
	Date           time.Time `json:"date"`   // day of the build
	SWDefined      uint32    `json:"sw_defined"`
	MiscSelect     uint32    `json:"misc_select"`
	MiscMask       uint32    `json:"misc_mask"`
	CETAttributes  uint8     `json:"cet_attributes"`
	CETMask        uint8     `json:"cet_attributes_mask"`
	FamilyID       [16]byte  `json:"isv_family_id"`
	Attributes     [16]byte  `json:"attributes"`
	AttributesMask [16]byte  `json:"attributes_mask"`
	EnclaveHash    [32]byte  `json:"enclave_hash"`
	ExtProdID      [16]byte  `json:"isv_ext_prod_id"`
	ISVProdID      uint16    `json:"isv_prod_id"`
	ISVSVN         uint16    `json:"isv_svn"`
	MRSIGNER       [32]byte  `json:"mr_signer"` // filled by VerifySigstruct
}

// reversed turns a little-endian number around, and back.
func reversed(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}

// VerifySigstruct parses a SIGSTRUCT and verifies all of it: headers, reserved
// bytes, the signature, and the quotients that the processor uses.
func VerifySigstruct(b []byte) (*Sigstruct, error) {
	if len(b) != SigstructSize {
		return nil, bad("sigstruct", "is %d bytes, want %d", len(b), SigstructSize)
	}
	if [16]byte(b) != sigHeader1 {
		return nil, bad("sigstruct.header", "is %x", b[:16])
	}
	if [16]byte(b[24:]) != sigHeader2 {
		return nil, bad("sigstruct.header2", "is %x", b[24:40])
	}
	if e := le.Uint32(b[sigExponent:]); e != 3 {
		return nil, bad("sigstruct.exponent", "is %d, want 3", e)
	}
	for _, z := range [][2]int{{44, 128}, {910, 912}, {992, 1008}, {1028, 1040}} {
		if !allZero(b[z[0]:z[1]]) {
			return nil, bad("sigstruct.reserved", "bytes %d to %d are not zero", z[0], z[1])
		}
	}
	date, err := time.Parse("20060102", fmt.Sprintf("%08x", le.Uint32(b[20:])))
	if err != nil {
		return nil, bad("sigstruct.date", "is %#x", le.Uint32(b[20:]))
	}
	m := new(big.Int).SetBytes(reversed(b[sigModulus : sigModulus+sigNumber]))
	s := new(big.Int).SetBytes(reversed(b[sigSignature : sigSignature+sigNumber]))
	if m.BitLen() != 3072 || m.Bit(0) == 0 {
		return nil, bad("sigstruct.modulus", "has %d bits, want 3072, odd", m.BitLen())
	}
	if s.Cmp(m) >= 0 {
		return nil, bad("sigstruct.signature", "is not below the modulus")
	}
	signed := append(slices.Clone(b[:128]), b[sigBody:sigBodyEnd]...)
	sum := sha256.Sum256(signed)
	pub := &rsa.PublicKey{N: m, E: 3}
	if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], s.FillBytes(make([]byte, sigNumber))); err != nil {
		return nil, bad("sigstruct.signature", "does not verify")
	}
	q1, q2 := sigQuotients(s, m)
	for _, q := range []struct {
		name string
		off  int
		v    *big.Int
	}{{"q1", sigQ1, q1}, {"q2", sigQ2, q2}} {
		if !bytes.Equal(b[q.off:q.off+sigNumber], reversed(q.v.FillBytes(make([]byte, sigNumber)))) {
			return nil, bad("sigstruct."+q.name, "is not what signature and modulus give")
		}
	}
	return &Sigstruct{
		Vendor: le.Uint32(b[16:]), Date: date, SWDefined: le.Uint32(b[40:]), MiscSelect: le.Uint32(b[900:]), MiscMask: le.Uint32(b[904:]),
		CETAttributes: b[908], CETMask: b[909], FamilyID: [16]byte(b[912:]), Attributes: [16]byte(b[928:]), AttributesMask: [16]byte(b[944:]),
		EnclaveHash: [32]byte(b[960:]), ExtProdID: [16]byte(b[1008:]), ISVProdID: le.Uint16(b[1024:]), ISVSVN: le.Uint16(b[1026:]),
		MRSIGNER: sha256.Sum256(b[sigModulus : sigModulus+sigNumber]),
	}, nil
}

// sigQuotients are floor(s²/m) and floor((s³ - q1·s·m)/m).
func sigQuotients(s, m *big.Int) (q1, q2 *big.Int) {
	q1, r := new(big.Int).QuoRem(new(big.Int).Mul(s, s), m, new(big.Int))
	return q1, new(big.Int).Quo(r.Mul(r, s), m)
}

// Sign makes the SIGSTRUCT, signed with an RSA key of 3072 bits and exponent 3.
func (s *Sigstruct) Sign(key *rsa.PrivateKey) ([]byte, error) {
	if key.N.BitLen() != 3072 || key.E != 3 {
		return nil, fmt.Errorf("sign SIGSTRUCT: key of %d bits with exponent %d, want 3072 and 3", key.N.BitLen(), key.E)
	}
	b := make([]byte, SigstructSize)
	copy(b, sigHeader1[:])
	le.PutUint32(b[16:], s.Vendor)
	y, mo, d := s.Date.Date()
	var bcd uint32
	if _, err := fmt.Sscanf(fmt.Sprintf("%04d%02d%02d", y, mo, d), "%x", &bcd); err != nil {
		return nil, fmt.Errorf("sign SIGSTRUCT: date %v: %w", s.Date, err)
	}
	le.PutUint32(b[20:], bcd)
	copy(b[24:], sigHeader2[:])
	le.PutUint32(b[40:], s.SWDefined)
	copy(b[sigModulus:], reversed(key.N.FillBytes(make([]byte, sigNumber))))
	le.PutUint32(b[sigExponent:], 3)
	le.PutUint32(b[900:], s.MiscSelect)
	le.PutUint32(b[904:], s.MiscMask)
	b[908], b[909] = s.CETAttributes, s.CETMask
	copy(b[912:], s.FamilyID[:])
	copy(b[928:], s.Attributes[:])
	copy(b[944:], s.AttributesMask[:])
	copy(b[960:], s.EnclaveHash[:])
	copy(b[1008:], s.ExtProdID[:])
	le.PutUint16(b[1024:], s.ISVProdID)
	le.PutUint16(b[1026:], s.ISVSVN)
	sum := sha256.Sum256(append(slices.Clone(b[:128]), b[sigBody:sigBodyEnd]...))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign SIGSTRUCT: %w", err)
	}
	copy(b[sigSignature:], reversed(sig))
	q1, q2 := sigQuotients(new(big.Int).SetBytes(sig), key.N)
	copy(b[sigQ1:], reversed(q1.FillBytes(make([]byte, sigNumber))))
	copy(b[sigQ2:], reversed(q2.FillBytes(make([]byte, sigNumber))))
	return b, nil
}

// MRENCLAVE computes the measurement of an enclave from its .sgxs stream: what
// the processor would compute while the enclave is loaded.
// Source: Intel SDM volume 3D, ECREATE, EADD and EEXTEND; the SGXS file format.
func MRENCLAVE(r io.Reader) ([32]byte, error) {
	var zero [32]byte
	h := sha256.New()
	var rec, data [256]byte
	var size, page uint64
	havePage := false
	for n := 0; ; n++ {
		if _, err := io.ReadFull(r, rec[:64]); err == io.EOF && n > 0 {
			return [32]byte(h.Sum(nil)), nil
		} else if err != nil {
			return zero, bad(fmt.Sprintf("sgxs.record[%d]", n), "is cut short")
		}
		field := fmt.Sprintf("sgxs.record[%d]", n)
		tag, off := string(bytes.TrimRight(rec[:8], "\x00")), le.Uint64(rec[8:])
		switch {
		case (tag == "ECREATE") != (n == 0):
			return zero, bad(field, "%q where %q belongs", tag, map[bool]string{true: "ECREATE", false: "EADD"}[n == 0])
		case tag == "ECREATE":
			if size = le.Uint64(rec[12:]); size == 0 || size&(size-1) != 0 || !allZero(rec[20:64]) {
				return zero, bad(field, "ECREATE of an enclave of %d bytes", size)
			}
		case tag == "EADD":
			if off%4096 != 0 || off >= size || !allZero(rec[32:64]) {
				return zero, bad(field, "EADD of a page at %#x", off)
			}
			page, havePage = off, true
		case tag == "EEXTEND" || tag == "UNMEASRD":
			if !havePage || off%256 != 0 || off < page || off >= page+4096 || !allZero(rec[16:64]) {
				return zero, bad(field, "%s at %#x, outside of the page added last", tag, off)
			}
			if _, err := io.ReadFull(r, data[:]); err != nil {
				return zero, bad(field, "its 256 bytes are cut short")
			}
		default:
			return zero, bad(field, "unknown record %q", tag)
		}
		if tag == "UNMEASRD" {
			continue
		}
		h.Write(rec[:64])
		if tag == "EEXTEND" {
			h.Write(data[:])
		}
	}
}

// MRSIGNER is the hash of a signer's public key as the processor computes it.
func MRSIGNER(key *rsa.PublicKey) ([32]byte, error) {
	if key.N.BitLen() != 3072 {
		return [32]byte{}, errors.New("MRSIGNER: key is not of 3072 bits")
	}
	return sha256.Sum256(reversed(key.N.FillBytes(make([]byte, sigNumber)))), nil
}

// String gives the enclave hash, as tools print an enclave's identity.
func (s *Sigstruct) String() string { return hex.EncodeToString(s.EnclaveHash[:]) }
