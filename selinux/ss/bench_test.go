// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"testing"
	"time"

	"github.com/palisade-sec/palisade/selinux/policydb"
)

// benchContexts returns random valid contexts of Debian's policy.
func benchContexts(b *testing.B, s *Server) []*Context {
	b.Helper()
	g := newGenerator(s.policy, 5)
	var out []*Context
	for len(out) < 4096 {
		if c, err := s.ParseContext(g.context()); err == nil {
			out = append(out, c)
		}
	}
	return out
}

// BenchmarkDecideRandom decides pairs that were hardly ever decided before:
// 4096 × 4096 contexts × 134 classes, all rows merged already.
func BenchmarkDecideRandom(b *testing.B) {
	s := loadServer(b, debianPolicy(b, "default"))
	contexts := benchContexts(b, s)
	for _, c := range contexts {
		s.row(c.typ)
	}
	for c := range s.policy.Classes.All() {
		s.classRules(c.ID())
	}
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		n = n*6364136223846793005 + 1442695040888963407
		class := policydb.ClassID(1 + (n>>20)%uint64(s.policy.Classes.Prim))
		s.Decide(contexts[n>>52], contexts[n>>32&4095], class)
	}
	b.ReportMetric(float64(s.rowBytes.Load())/(1<<20), "MiB-rows")
}

// BenchmarkDecideFiles decides what is asked most: processes and files.
func BenchmarkDecideFiles(b *testing.B) {
	s := loadServer(b, debianPolicy(b, "default"))
	contexts := benchContexts(b, s)
	var domains []*Context
	for _, c := range contexts {
		s.row(c.typ)
		if c.role != policydb.ObjectRole {
			domains = append(domains, c)
		}
	}
	class := s.Class("file")
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		n = n*6364136223846793005 + 1442695040888963407
		s.Decide(domains[(n>>40)%uint64(len(domains))], contexts[n>>32&4095], class)
	}
}

// BenchmarkDecideHot repeats one decision.
func BenchmarkDecideHot(b *testing.B) {
	s := loadServer(b, debianPolicy(b, "default"))
	contexts := benchContexts(b, s)
	class := s.Class("file")
	b.ReportAllocs()
	for b.Loop() {
		s.Decide(contexts[1], contexts[2], class)
	}
}

// BenchmarkDecideSepol is the peer: libsepol's sepol_compute_av on random pairs.
func BenchmarkDecideSepol(b *testing.B) {
	data := debianPolicy(b, "default")
	s := loadServer(b, data)
	g := newGenerator(s.policy, 5)
	var texts []string
	for len(texts) < 1000 {
		c := g.context()
		if _, err := s.ParseContext(c); err == nil {
			texts = append(texts, c)
		}
	}
	o := startSepol(b, data, texts)
	const batch = 20000
	questions := make([]question, batch)
	for i := range questions {
		questions[i] = question{'d', g.class(), g.rng.Uint32N(1000), g.rng.Uint32N(1000), 0}
	}
	asked := 0
	start := time.Now()
	for b.Loop() {
		if asked++; asked > 1 && (asked-1)%batch != 0 {
			continue
		}
		done := ask(o, questions)
		for range questions {
			for range 4 {
				o.get()
			}
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	batches := (asked + batch - 1) / batch
	b.ReportMetric(float64(time.Since(start).Nanoseconds())/float64(batches*batch), "ns/decision")
}

// BenchmarkFirstDecision is what a process pays before its first decision, beside reading
// the file: parse, validate, index, two contexts, one row.
func BenchmarkFirstDecision(b *testing.B) {
	data := debianPolicy(b, "default")
	b.ReportAllocs()
	for b.Loop() {
		s := loadServer(b, data)
		source, err := s.ParseContext("system_u:system_r:svirt_t:s0:c1,c2")
		if err != nil {
			b.Fatal(err)
		}
		target, err := s.ParseContext("system_u:object_r:svirt_image_t:s0:c1,c2")
		if err != nil {
			b.Fatal(err)
		}
		s.Decide(source, target, s.Class("file"))
	}
}

func BenchmarkParseContext(b *testing.B) {
	s := loadServer(b, debianPolicy(b, "default"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.ParseContext("system_u:system_r:svirt_t:s0:c12,c741"); err != nil {
			b.Fatal(err)
		}
	}
}
