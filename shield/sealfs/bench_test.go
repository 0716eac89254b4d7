// SPDX-License-Identifier: Apache-2.0

package sealfs

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// cpu is the processor time of this process: what a shared machine leaves comparable.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perCPU reports bytes per second of processor time.
func perCPU(b *testing.B, bytes int64, from time.Duration) {
	if used := cpu() - from; used > 0 {
		b.ReportMetric(float64(bytes)*float64(b.N)/used.Seconds()/1e9, "GB/cpu-s")
		b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
	}
}

// BenchmarkAEAD is the floor: AES-256-GCM of 4 KiB under one key.
func BenchmarkAEAD(b *testing.B) {
	c, err := aes.NewCipher(testKey())
	if err != nil {
		b.Fatal(err)
	}
	g, err := cipher.NewGCM(c)
	if err != nil {
		b.Fatal(err)
	}
	p, iv := make([]byte, BlockSize+tagSize), make([]byte, 12)
	b.SetBytes(BlockSize)
	from := cpu()
	for b.Loop() {
		g.Seal(p[:0], iv, p[:BlockSize], nil)
	}
	perCPU(b, BlockSize, from)
}

// nowhere is a device that forgets: what is measured is the sealing.
type nowhere struct{ end int64 }

func (n *nowhere) ReadAt([]byte, int64) (int, error) { return 0, errFull }
func (n *nowhere) WriteAt(p []byte, off int64) (int, error) {
	n.end = max(n.end, off+int64(len(p)))
	return len(p), nil
}
func (n *nowhere) Size() (int64, error) { return 0, nil }
func (n *nowhere) Sync() error          { return nil }

// BenchmarkSeal seals one large file on one core.
func BenchmarkSeal(b *testing.B) {
	const size = 64 << 20
	data := make([]byte, size)
	rand.Read(data)
	for _, class := range []Class{Encrypted, Authenticated} {
		b.Run(class.String(), func(b *testing.B) {
			b.SetBytes(size)
			from := cpu()
			defer func() { perCPU(b, size, from) }()
			for b.Loop() {
				e := Entry{Path: "/f", Type: Regular, Size: size, Open: func() (Content, error) { return content{bytesAt(data)}, nil }}
				opts := Options{Policy: Policy{Regions: []Region{{"/", class}}, Freshness: AtFsync}}
				if _, err := Seal(&nowhere{}, testKey(), opts, Source{Entries: entries([]Entry{e}), Workers: 1}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type content struct{ bytesAt }

func (content) Close() error { return nil }

// BenchmarkRead reads at random, 4 KiB at a time, and in order, 1 MiB at a time.
func BenchmarkRead(b *testing.B) {
	const size = 64 << 20
	dev := &memory{}
	v, err := Create(dev, testKey(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	f, err := v.Create("/f", Attr{})
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, size)
	rand.Read(data)
	if _, err := f.WriteAt(data, 0); err != nil {
		b.Fatal(err)
	}
	if _, err := v.Commit(); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{BlockSize, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := make([]byte, n)
			b.SetBytes(int64(n))
			from := cpu()
			defer func() { perCPU(b, int64(n), from) }()
			at := uint64(1)
			for b.Loop() {
				at = at*6364136223846793005 + 1442695040888963407
				if _, err := f.ReadAt(p, int64(at>>33%(size/uint64(n)))*int64(n)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWrite writes 4 KiB at random, committing after each, after each 64, or never.
func BenchmarkWrite(b *testing.B) {
	const size = 64 << 20
	for _, every := range []int{1, 64, 0} {
		b.Run(fmt.Sprintf("commit-every-%d", every), func(b *testing.B) {
			dev := &memory{}
			v, err := Create(dev, testKey(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			f, err := v.Create("/f", Attr{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
				b.Fatal(err)
			}
			if _, err := v.Commit(); err != nil {
				b.Fatal(err)
			}
			p := make([]byte, BlockSize)
			rand.Read(p)
			b.SetBytes(BlockSize)
			from := cpu()
			defer func() { perCPU(b, BlockSize, from) }()
			at, n := uint64(1), 0
			for b.Loop() {
				at = at*6364136223846793005 + 1442695040888963407
				if _, err := f.WriteAt(p, int64(at>>33%(size/BlockSize))*BlockSize); err != nil {
					b.Fatal(err)
				}
				if n++; every > 0 && n%every == 0 {
					if _, err := v.Commit(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
