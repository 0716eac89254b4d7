// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Errors of OpenConsole.
var (
	// ErrConsole: a block was changed, left out, repeated or reordered, or is of another run or key.
	ErrConsole = errors.New("the console stream does not verify")
	// ErrConsoleCut: the stream ends without its end mark: the program still runs, or was killed with its launcher, or the tail is missing.
	ErrConsoleCut = errors.New("the console stream has no end mark")
)

const (
	consoleHead = 64
	consoleMax  = 1 << 17
)

// OpenConsole reads one sealed stream (what came out of the standard output or error
// of a run), checks each block's place, and writes the plain text to w as it comes.
func OpenConsole(w io.Writer, r io.Reader, key []byte) error {
	outer, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	var head [consoleHead]byte
	var run [16]byte
	var stream byte
	for seq := uint64(0); ; seq++ {
		if _, err := io.ReadFull(r, head[:]); err == io.EOF || err == io.ErrUnexpectedEOF {
			return ErrConsoleCut
		} else if err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(head[8:])
		if string(head[:4]) != "PCB1" || n > consoleMax || binary.LittleEndian.Uint64(head[24:]) != seq {
			return fmt.Errorf("%w: block %d is not in its place", ErrConsole, seq)
		}
		if seq == 0 {
			copy(run[:], head[32:])
			stream = head[4]
		}
		if !bytes.Equal(run[:], head[32:48]) || stream != head[4] || head[6]|head[7] != 0 || head[5] > 1 {
			return fmt.Errorf("%w: block %d is of another stream", ErrConsole, seq)
		}
		box := make([]byte, n, n+16)
		if _, err := io.ReadFull(r, box); err != nil {
			return ErrConsoleCut
		}
		plain, err := openBlock(outer, head[:], append(box, head[48:64]...))
		if err != nil {
			return fmt.Errorf("%w: block %d", ErrConsole, seq)
		}
		if _, err := w.Write(plain); err != nil {
			return err
		}
		if head[5] == 1 {
			return nil
		}
	}
}

// openBlock opens one block as section 2.2 of docs/sealfs.md says, with the stream in
// place of the class, the end mark in place of the level and the run in place of the volume.
func openBlock(outer cipher.Block, head, box []byte) ([]byte, error) {
	var k1 [16]byte
	outer.Encrypt(k1[:], k1[:])
	top := k1[0] >> 7
	for i := range k1 {
		k1[i] <<= 1
		if i < 15 {
			k1[i] |= k1[i+1] >> 7
		}
	}
	k1[15] ^= 0x87 * top
	var inner [32]byte
	for i := range 2 {
		m := [16]byte{0, byte(i + 1), 'X', 0}
		copy(m[4:], head[12:24])
		for j := range m {
			m[j] ^= k1[j]
		}
		outer.Encrypt(inner[16*i:], m[:])
	}
	block, err := aes.NewCipher(inner[:])
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	var iv [12]byte
	iv[0] = head[5]
	copy(iv[4:], head[24:32])
	aad := make([]byte, 48)
	copy(aad, "SFS1")
	aad[4], aad[5], aad[6], aad[7] = 1, head[4], head[5], 12
	copy(aad[8:], head[24:32])
	copy(aad[16:], head[32:48])
	return gcm.Open(box[:0], iv[:], box, aad)
}
