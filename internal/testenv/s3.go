package testenv

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The S3 server of tests: real, small, and quick to start.
const (
	versitygw        = "github.com/versity/versitygw/cmd/versitygw"
	versitygwVersion = "v1.8.0"
)

// S3 is a versitygw server that keeps buckets in a temporary directory.
type S3 struct {
	Endpoint  string // http://127.0.0.1:port
	AccessKey string
	SecretKey string
	Dir       string // holds a directory for each bucket, with objects as files

	t      testing.TB
	binary string
	addr   string
	cmd    *exec.Cmd     // nil: stopped
	exited chan struct{} // closed when cmd has
}

// StartS3 starts a server with the given buckets and stops it when the test
// ends. The server comes from $VERSITYGW, $PATH or Go's binary directory; where
// it is missing it is built once into the user's cache, which takes minutes.
func StartS3(t testing.TB, buckets ...string) *S3 {
	t.Helper()
	s := &S3{AccessKey: "marfs", SecretKey: "marfs-secret", Dir: t.TempDir(), t: t, binary: findVersitygw(t)}
	t.Cleanup(s.Stop)
	s.Restart()
	client, err := minio.New(s.addr, &minio.Options{Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, "")})
	if err != nil {
		t.Fatal(err)
	}
	for _, bucket := range buckets {
		if err := client.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
			t.Fatalf("make bucket %s: %v", bucket, err)
		}
	}
	return s
}

// Stop kills the server, as a crash would. Stopping it twice is fine.
func (s *S3) Stop() {
	if s.cmd == nil {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.exited
	s.cmd = nil
}

// Freeze makes the server hang: it takes connections and answers nothing.
func (s *S3) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw ends what Freeze began.
func (s *S3) Thaw() { s.signal(syscall.SIGCONT) }

func (s *S3) signal(sig syscall.Signal) {
	if err := syscall.Kill(-s.cmd.Process.Pid, sig); err != nil {
		s.t.Errorf("testenv: signal %v: %v", sig, err)
	}
}

// Restart starts the server, stopping it first where it runs. Its address and
// buckets stay the same.
func (s *S3) Restart() {
	s.t.Helper()
	s.Stop()
	for range 5 {
		if s.Endpoint == "" {
			s.addr = freePort(s.t)
		}
		if s.start() {
			s.Endpoint = "http://" + s.addr
			return
		}
	}
	log, _ := os.ReadFile(s.logFile())
	s.t.Fatalf("testenv: %s does not answer at %s:\n%s", s.binary, s.addr, log)
}

func (s *S3) logFile() string { return filepath.Join(s.Dir, ".log") }

// start runs the server and says whether it came to answer.
func (s *S3) start() bool {
	log, err := os.Create(s.logFile())
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(s.binary, "--port", s.addr, "--access", s.AccessKey, "--secret", s.SecretKey,
		"--quiet", "--keep-alive", "posix", s.Dir)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, so that all of it can be killed; and dead when this process is.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error), make(chan struct{})
	go func() {
		defer close(exited)
		// Pdeathsig is about this thread, which therefore must stay as long as the server.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatalf("testenv: start %s: %v", s.binary, err)
	}
	s.cmd, s.exited = cmd, exited
	return s.answers()
}

// answers waits until the server serves requests; false when it exits instead.
func (s *S3) answers() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			return true
		}
		select {
		case <-tick.C:
		case <-s.exited:
			s.cmd = nil
			return false
		case <-ctx.Done():
			s.Stop()
			return false
		}
	}
}

func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// findVersitygw returns a server binary. Where none can be had the test is
// skipped, but never in CI, where that would hide everything it tests.
func findVersitygw(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("VERSITYGW"); path != "" {
		return path
	}
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	built := filepath.Join(cache, "marfs-test", "versitygw-"+versitygwVersion)
	for _, dir := range append(goBins(), built) {
		path := filepath.Join(dir, "versitygw")
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path
		}
	}
	path, err := buildVersitygw(built)
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("testenv: no S3 server: %v", err)
	}
	if err != nil {
		t.Fatalf("testenv: no S3 server: %v", err)
	}
	return path
}

func goBins() (dirs []string) {
	if dir := os.Getenv("GOBIN"); dir != "" {
		dirs = append(dirs, dir)
	}
	gopath := os.Getenv("GOPATH")
	if home, err := os.UserHomeDir(); err == nil && gopath == "" {
		gopath = filepath.Join(home, "go")
	}
	for _, dir := range filepath.SplitList(gopath) {
		dirs = append(dirs, filepath.Join(dir, "bin"))
	}
	return dirs
}

// buildVersitygw installs the server into dir. Test processes of several
// packages may want that at the same time: one builds, the others wait.
func buildVersitygw(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "versitygw")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", versitygw+"@"+versitygwVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return path, nil
}
