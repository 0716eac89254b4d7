// SPDX-License-Identifier: Apache-2.0

package volfile

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// IsImage says whether a directory is an OCI image layout.
func IsImage(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "oci-layout"))
	return err == nil
}

// OpenImage gives the files of an image as one tar stream: of an OCI layout, of
// an archive from docker save, or of a plain tar archive, compressed with gzip or not.
func OpenImage(name string) (io.ReadCloser, error) {
	if IsImage(name) {
		img, err := layoutImage(name)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		return mutate.Extract(img), nil
	}
	if m, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(name) }); err == nil && len(m) > 0 {
		if len(m) > 1 {
			return nil, fmt.Errorf("image %s: holds %d images, want one", name, len(m))
		}
		img, err := tarball.ImageFromPath(name, nil)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		return mutate.Extract(img), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s: neither an image nor an archive", name)
	}
	b := bufio.NewReaderSize(f, 1<<20)
	if magic, _ := b.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(b)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("archive %s: %w", name, err)
		}
		return readCloser{z, f}, nil
	}
	return readCloser{b, f}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

func layoutImage(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var found []v1.Descriptor
	for _, d := range m.Manifests {
		if d.MediaType.IsIndex() {
			return nil, errors.New("is for several platforms, want one")
		}
		if d.MediaType.IsImage() {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("holds %d images, want one", len(found))
	}
	return index.Image(found[0].Digest)
}
