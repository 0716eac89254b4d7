// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime"

	"github.com/palisade-sec/palisade/internal/laststep"
)

// Cache keeps compiled filters from one container to the next. What it loses is
// compiled again.
type Cache interface {
	Load(key string) ([]byte, bool)
	Store(key string, value []byte)
}

// cached is the filter that compile would return for what, from the cache if it has
// been made before: by this program, for this kernel.
func (h Host) cached(what any, compile func() (laststep.Filter, error)) (laststep.Filter, error) {
	if h.Cache == nil {
		return compile()
	}
	key, err := h.cacheKey(what)
	if err != nil {
		return compile()
	}
	if b, ok := h.Cache.Load(key); ok {
		if c, err := laststep.Decode(b); err == nil && len(c.Filters) == 1 {
			return c.Filters[0], nil
		}
	}
	f, err := compile()
	if err == nil {
		c := laststep.Config{Filters: []laststep.Filter{f}}
		h.Cache.Store(key, c.Encode())
	}
	return f, err
}

// cacheKey names what, together with all that its filter depends on.
func (h Host) cacheKey(what any) (string, error) {
	// Another build may compile differently.
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(what)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d %d %s %s %T\n", self.Size(), self.ModTime().UnixNano(), h.Kernel, runtime.GOARCH, what)
	sum.Write(b)
	return hex.EncodeToString(sum.Sum(nil)), nil
}
