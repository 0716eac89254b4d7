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
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// IsImage says whether a directory is an OCI image layout.
func IsImage(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "oci-layout"))
	return err == nil
}

// OpenImage finds the layers of an image: of an OCI layout, of an archive from
// docker save or podman save; or the one of a plain tar archive, compressed with gzip or not.
func OpenImage(name string) (Layers, error) {
	if IsImage(name) {
		img, err := layoutImage(name)
		if err != nil {
			return Layers{}, fmt.Errorf("image %s: %w", name, err)
		}
		return imageLayers(name, img)
	}
	if fi, err := os.Stat(name); err != nil {
		return Layers{}, err
	} else if !fi.Mode().IsRegular() {
		return Layers{}, fmt.Errorf("%s: neither a directory, an image nor an archive", name)
	}
	if m, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(name) }); err == nil && len(m) > 0 {
		if len(m) > 1 {
			return Layers{}, fmt.Errorf("image %s: holds %d images, want one", name, len(m))
		}
		img, err := tarball.ImageFromPath(name, nil)
		if err != nil {
			return Layers{}, fmt.Errorf("image %s: %w", name, err)
		}
		return imageLayers(name, img)
	}
	return Layers{Name: name, Open: []func() (io.ReadCloser, error){func() (io.ReadCloser, error) { return openArchive(name) }}}, nil
}

func imageLayers(name string, img v1.Image) (Layers, error) {
	list, err := img.Layers()
	if err != nil {
		return Layers{}, fmt.Errorf("image %s: %w", name, err)
	}
	l := Layers{Name: "image " + name, Image: true}
	for _, layer := range list {
		l.Open = append(l.Open, layer.Uncompressed)
	}
	return l, nil
}

func openArchive(name string) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b := bufio.NewReaderSize(f, 1<<20)
	if magic, _ := b.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(b)
		if err != nil {
			f.Close()
			return nil, err
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
