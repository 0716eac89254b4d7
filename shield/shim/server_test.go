// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package shim

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/shield/sealfs"
)

// server is a program that was started shielded or bare, in a process of its own:
// the shielded one by this test binary (see TestMain).
type server struct {
	cmd   *exec.Cmd
	log   bytes.Buffer  // to be read when it ended
	ended chan struct{} // closed when it ended
}

const serveVariable = "PALISADE_TEST_SERVE"

// TestMain runs a shielded server when it is told so.
func TestMain(m *testing.M) {
	v := os.Getenv(serveVariable)
	if v == "" {
		os.Exit(m.Run())
	}
	_ = os.Unsetenv(serveVariable)
	c := Config{Program: os.Args[1], Args: os.Args[1:], Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	c.UserDispatch = v == "dispatch"
	if volume, keyName, ok := strings.Cut(v, "|"); ok {
		key, err := os.ReadFile(keyName)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(125)
		}
		c.Volume, c.Mount, c.Key = volume, "/sealed", key
	}
	res, err := Run(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(125)
	}
	os.Exit(res.Code)
}

// loopback is an address that only this process uses. On 127.0.0.1 a port that was
// free a moment ago can be the source port of another program's connection.
var loopback = fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()>>16&0x7f, os.Getpid()>>8&0xff, os.Getpid()&0xff)

// answers reports whether a server listens.
func answers(port int) bool {
	c, err := net.Dial("tcp", net.JoinHostPort(loopback, fmt.Sprint(port)))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// redisAnswers tells that redis has loaded its data: it listens before that, and
// refuses commands meanwhile.
func redisAnswers(port int) bool {
	c, err := net.Dial("tcp", net.JoinHostPort(loopback, fmt.Sprint(port)))
	if err != nil {
		return false
	}
	defer c.Close()
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && line == "+PONG\r\n"
}

// serve starts a server and waits until it is ready; how is "" (bare), "passed" (no
// volume), "dispatch" (by that as well) or "VOLUME|KEYFILE".
func serve(tb testing.TB, how string, port int, ready func(port int) bool, args ...string) *server {
	tb.Helper()
	s := &server{}
	path, err := exec.LookPath(args[0])
	if err != nil {
		tb.Fatal(err)
	}
	s.cmd = exec.Command(path, args[1:]...)
	if how != "" {
		self, err := os.Executable()
		if err != nil {
			tb.Fatal(err)
		}
		s.cmd = exec.Command(self, append([]string{path}, args[1:]...)...)
		s.cmd.Env = append(os.Environ(), serveVariable+"="+how)
	}
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.WaitDelay = 5 * time.Second
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	s.ended = make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(s.ended) }()
	tb.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.ended
	})
	await.Until(tb, fmt.Sprintf("%v (%q) on port %d", args, how, port), func() (bool, error) {
		select {
		case <-s.ended:
			return false, fmt.Errorf("it ended: %v\n%s", s.cmd.ProcessState, s.log.Bytes())
		default:
			return ready(port), nil
		}
	})
	return s
}

// stop ends a server by SIGTERM and waits for it.
func (s *server) stop(tb testing.TB) {
	tb.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.ended
	if code := s.cmd.ProcessState.ExitCode(); code != 0 && code != 143 && code != -1 {
		tb.Errorf("%v: exit %d\n%s", s.cmd.Args, code, s.log.Bytes())
	}
}

func freePort(tb testing.TB) int {
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func sealedFor(t *testing.T, dir string) (how string, volume string, key []byte) {
	volume, key = seal(t, dir, sealfs.Options{})
	return volume + "|" + keyFile(t, key), volume, key
}

// TestServersRedis: an append-only file in the volume, a rewrite of it by a forked
// child, and the data back after a restart.
func TestServersRedis(t *testing.T) {
	oracle.Tool(t, "redis-server", "apt: redis-server")
	cli := oracle.Tool(t, "redis-cli", "apt: redis-tools")
	benchmark := oracle.Tool(t, "redis-benchmark", "apt: redis-tools")
	how, volume, key := sealedFor(t, t.TempDir())
	port := freePort(t)
	p := fmt.Sprint(port)
	start := func() *server {
		return serve(t, how, port, redisAnswers, "redis-server", "--bind", loopback, "--port", p, "--dir", "/sealed", "--save", "", "--appendonly", "yes")
	}
	ask := func(args ...string) string {
		out, code := bare(t, "/", append([]string{cli, "-h", loopback, "-p", p}, args...)...)
		if code != 0 {
			t.Errorf("redis-cli %v: %s", args, out)
		}
		return strings.TrimSpace(out)
	}
	s := start()
	if out, code := bare(t, "/", benchmark, "-h", loopback, "-p", p, "-n", "20000", "-r", "5000", "-c", "20", "-q", "-t", "set,incr,lpush"); code != 0 {
		t.Fatal(out)
	}
	ask("set", "answer", "forty-two")
	ask("bgrewriteaof")
	await.True(t, "the end of the rewrite", func() bool {
		info := ask("info", "persistence")
		return strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0")
	})
	if info := ask("info", "persistence"); !strings.Contains(info, "aof_last_bgrewrite_status:ok") || !strings.Contains(info, "aof_last_write_status:ok") {
		t.Error(info)
	}
	size := ask("dbsize")
	s.stop(t)
	fsck(t, volume, key)
	s = start()
	if got := ask("get", "answer"); got != "forty-two" {
		t.Errorf("after a restart the answer is %q", got)
	}
	if got := ask("dbsize"); got != size {
		t.Errorf("after a restart %s keys, before %s", got, size)
	}
	s.stop(t)
	b, err := os.ReadFile(volume)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("forty-two")) || bytes.Contains(b, []byte("appendonly")) {
		t.Error("the volume contains what redis wrote")
	}
}

const nginxConf = `daemon off; worker_processes 2; pid %[1]s/nginx.pid; error_log stderr; user root;
events { worker_connections 128; }
http { access_log off; sendfile on; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f;
uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen %[4]s:%[3]d; root %[2]s; } }
`

func nginx(tb testing.TB, how, root string, port int) *server {
	run := tb.TempDir()
	conf := filepath.Join(run, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, run, root, port, loopback), 0o644); err != nil {
		tb.Fatal(err)
	}
	return serve(tb, how, port, answers, "/usr/sbin/nginx", "-p", run, "-e", "stderr", "-c", conf)
}

// TestServersNginx serves sealed files with sendfile, whole and in ranges.
func TestServersNginx(t *testing.T) {
	oracle.Tool(t, "nginx", "apt: nginx")
	dir := t.TempDir()
	want := map[string][]byte{}
	for _, n := range []int{0, 100, 4096, 300_000, 3_000_000} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i * i >> 5)
		}
		name := fmt.Sprintf("f%d", n)
		want[name] = b
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	how, _, _ := sealedFor(t, dir)
	port := freePort(t)
	s := nginx(t, how, "/sealed", port)
	for name, b := range want {
		for range 3 {
			resp, err := http.Get(fmt.Sprintf("http://%s:%d/%s", loopback, port, name))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 200 || !bytes.Equal(got, b) {
				t.Errorf("%s: %s, %d bytes, want %d (%v)", name, resp.Status, len(got), len(b), err)
			}
		}
	}
	resp, err := http.Get(fmt.Sprintf("http://%s:%d/none", loopback, port))
	if err != nil || resp.StatusCode != 404 {
		t.Errorf("%v %v", resp, err)
	} else {
		resp.Body.Close()
	}
	s.stop(t)
}

func TestServersMemcached(t *testing.T) {
	oracle.Tool(t, "memcached", "apt: memcached")
	port := freePort(t)
	s := serve(t, "passed", port, answers, "memcached", "-u", "root", "-l", loopback, "-p", fmt.Sprint(port), "-t", "4")
	c, err := net.Dial("tcp", net.JoinHostPort(loopback, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "set k 0 0 5\r\nhello\r\nget k\r\nquit\r\n")
	got, err := io.ReadAll(c)
	if want := "STORED\r\nVALUE k 0 5\r\nhello\r\nEND\r\n"; err != nil || string(got) != want {
		t.Errorf("got %q (%v)", got, err)
	}
	s.stop(t)
}
