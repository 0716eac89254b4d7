// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Suites of block sealing (docs/sealfs.md section 2).
const (
	SuiteAES256GCM byte = 1 // XAES-256-GCM with a random salt and a positional IV
	SuiteAEGIS256  byte = 2 // specified, not implemented here
)

const (
	saltSize = 12
	tagSize  = 16
	aadSize  = 48
	idSize   = 16

	levelRoot = 0xff
)

// keys are what one volume key gives.
type keys struct {
	prk        []byte
	volumeID   [idSize]byte
	suite      byte
	commitment [32]byte
	header     [32]byte
}

func deriveKeys(key []byte, suite byte, volumeID [idSize]byte, kdfSalt [32]byte) (*keys, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("key is %d bytes, want %d", len(key), KeySize)
	}
	prk, err := hkdf.Extract(sha256.New, key, kdfSalt[:])
	if err != nil {
		return nil, err
	}
	k := &keys{prk: prk, volumeID: volumeID, suite: suite}
	for _, d := range []struct {
		label string
		out   *[32]byte
	}{{"sealfs/1 commitment", &k.commitment}, {"sealfs/1 header", &k.header}} {
		if err := k.expand(d.out[:], d.label, nil); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k *keys) expand(out []byte, label string, suffix []byte) error {
	info := append(append([]byte(label), k.volumeID[:]...), suffix...)
	b, err := hkdf.Expand(sha256.New, k.prk, string(info), len(out))
	if err != nil {
		return err
	}
	copy(out, b)
	clear(b)
	return nil
}

// wipe forgets what the key gave. The expanded AES keys inside the standard
// library's ciphers stay until they are collected: Go offers no way at them.
func (k *keys) wipe() {
	clear(k.prk)
	clear(k.header[:])
	clear(k.commitment[:])
}

func (k *keys) headerMAC(b []byte) []byte {
	m := hmac.New(sha256.New, k.header[:])
	m.Write(b)
	return m.Sum(nil)
}

func (k *keys) rootKey() (*blockKey, error) {
	var id [idSize]byte
	for i := range id {
		id[i] = 0xff
	}
	return k.newBlockKey("sealfs/1 root", nil, id, Encrypted)
}

// fileKey derives the key of one file.
func (k *keys) fileKey(id [idSize]byte, class Class) (*blockKey, error) {
	return k.newBlockKey("sealfs/1 file", append(id[:len(id):len(id)], byte(class)), id, class)
}

func (k *keys) newBlockKey(label string, suffix []byte, id [idSize]byte, class Class) (*blockKey, error) {
	var raw [32]byte
	if err := k.expand(raw[:], label, suffix); err != nil {
		return nil, err
	}
	b, err := aes.NewCipher(raw[:])
	clear(raw[:])
	if err != nil {
		return nil, err
	}
	bk := &blockKey{block: b, class: class}
	bk.subkey()
	copy(bk.aad[:], "SFS1")
	bk.aad[4], bk.aad[5], bk.aad[7] = k.suite, byte(class), 12
	copy(bk.aad[16:], k.volumeID[:])
	copy(bk.aad[32:], id[:])
	return bk, nil
}

// blockKey seals and opens the blocks of one file. It is immutable and safe for
// concurrent use.
type blockKey struct {
	block cipher.Block
	k1    [16]byte
	aad   [aadSize]byte
	class Class
}

// subkey computes the subkey of XAES-256-GCM: CMAC's K1.
func (k *blockKey) subkey() {
	k.block.Encrypt(k.k1[:], k.k1[:])
	var msb byte
	for i := aes.BlockSize - 1; i >= 0; i-- {
		msb, k.k1[i] = k.k1[i]>>7, k.k1[i]<<1|msb
	}
	k.k1[aes.BlockSize-1] ^= 0x87 & -msb
}

// derived returns the AEAD for one salt: XAES-256-GCM's derived key.
// Source: C2SP XAES-256-GCM.
func (k *blockKey) derived(salt []byte) cipher.AEAD {
	var x [2 * aes.BlockSize]byte
	for i := range 2 {
		m := x[i*aes.BlockSize : (i+1)*aes.BlockSize]
		m[1], m[2] = byte(i+1), 'X'
		copy(m[4:], salt[:saltSize])
		for j := range m {
			m[j] ^= k.k1[j]
		}
		k.block.Encrypt(m, m)
	}
	b, err := aes.NewCipher(x[:])
	if err != nil {
		panic(err) // the key has the right size
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		panic(err) // AES blocks are 16 bytes
	}
	return g
}

func (k *blockKey) position(level uint8, index uint64) (iv [12]byte, aad [aadSize]byte) {
	iv[0] = level
	binary.LittleEndian.PutUint64(iv[4:], index)
	aad = k.aad
	aad[6] = level
	binary.LittleEndian.PutUint64(aad[8:], index)
	return iv, aad
}

// clear says whether data at this level is stored in clear.
func (k *blockKey) clear(level uint8) bool { return k.class == Authenticated && level == 0 }

// seal encrypts plain into dst, which must have room for the tag behind
// len(plain) bytes, and returns the tag. dst may be plain itself.
func (k *blockKey) seal(dst, plain, salt []byte, level uint8, index uint64) (tag [tagSize]byte) {
	iv, aad := k.position(level, index)
	aead := k.derived(salt)
	if k.clear(level) {
		copy(dst[:len(plain)], plain)
		full := append(aad[:], plain...)
		copy(tag[:], aead.Seal(nil, iv[:], nil, full))
		return tag
	}
	out := aead.Seal(dst[:0], iv[:], plain, aad[:])
	copy(tag[:], out[len(plain):])
	return tag
}

// open verifies and decrypts box (stored bytes with tagSize bytes of room
// behind them, which it overwrites) into dst. It reports false, and leaves dst
// without data, when the tag does not verify.
func (k *blockKey) open(dst, box, salt []byte, tag [tagSize]byte, level uint8, index uint64) bool {
	iv, aad := k.position(level, index)
	aead := k.derived(salt)
	n := len(box)
	if k.clear(level) {
		full := append(aad[:], box...)
		if _, err := aead.Open(nil, iv[:], tag[:], full); err != nil {
			return false
		}
		copy(dst, box)
		return true
	}
	sealed := box[:n+tagSize]
	copy(sealed[n:], tag[:])
	_, err := aead.Open(dst[:0:n], iv[:], sealed, aad[:])
	return err == nil
}
