package hub

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const weights = "these are weights, as far as anybody can tell"

// echo -n hello | git hash-object --stdin
const helloBlob = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"

func serve(t *testing.T, options Options) (*httptest.Server, *Hub) {
	t.Helper()
	options.Root = t.TempDir()
	for path, content := range map[string]string{
		"org/open/config.json": "hello", "org/open/q4/m.gguf": weights, "org/closed/m.gguf": weights,
	} {
		place := filepath.Join(options.Root, path)
		if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(place, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hub, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(hub)
	t.Cleanup(server.Close)
	// Redirects are ours to look at.
	server.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return server, hub
}

// ask sends a request with headers, each as "NAME: VALUE", and returns the answer with its body.
func ask(t *testing.T, server *httptest.Server, method, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// is compares a status and headers, each as "NAME: VALUE".
func is(t *testing.T, response *http.Response, status int, headers ...string) {
	t.Helper()
	if response.StatusCode != status {
		t.Errorf("%s: got %s, want %d", response.Request.URL, response.Status, status)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if got := response.Header.Get(name); got != value {
			t.Errorf("%s: %s is %q, want %q", response.Request.URL, name, got, value)
		}
	}
}

type info struct {
	SHA      string
	Siblings []struct {
		RFilename string
		Size      *int64
		BlobID    string
		LFS       *struct {
			SHA256 string
			Size   int64
		}
	}
}

func TestRevisionTellsItsFiles(t *testing.T) {
	server, hub := serve(t, Options{})
	commit, sha256 := hub.repositories["org/open"].commit, hub.repositories["org/open"].files["q4/m.gguf"].sha256
	for _, path := range []string{"", "/revision/main", "/revision/" + commit} {
		response, body := ask(t, server, "GET", "/api/models/org/open"+path+"?blobs=true")
		is(t, response, 200, "Content-Type: application/json")
		var told info
		if err := json.Unmarshal([]byte(body), &told); err != nil || len(told.Siblings) != 2 {
			t.Fatalf("%v: %s", err, body)
		}
		small, large := told.Siblings[0], told.Siblings[1]
		if told.SHA != commit || len(commit) != 40 || small.RFilename != "config.json" || *small.Size != 5 ||
			small.BlobID != helloBlob || small.LFS != nil || large.RFilename != "q4/m.gguf" ||
			large.LFS.SHA256 != sha256 || large.LFS.Size != int64(len(weights)) {
			t.Errorf("got %s", body)
		}
	}
	_, body := ask(t, server, "GET", "/api/models/org/open")
	if strings.Contains(body, helloBlob) || !strings.Contains(body, "config.json") {
		t.Errorf("checksums that were not asked for, or no files: %s", body)
	}
	response, body := ask(t, server, "GET", "/api/models/org/open/tree/main?recursive=true")
	is(t, response, 200)
	if !strings.Contains(body, `"path":"q4/m.gguf"`) || !strings.Contains(body, `"oid":"`+sha256+`"`) {
		t.Errorf("got %s", body)
	}
}

func TestSmallFileIsSentAndLargeOneIsElsewhere(t *testing.T) {
	server, hub := serve(t, Options{})
	repository := hub.repositories["org/open"]
	commit, sha256 := "X-Repo-Commit: "+repository.commit, repository.files["q4/m.gguf"].sha256
	for _, method := range []string{"GET", "HEAD"} {
		response, body := ask(t, server, method, "/org/open/resolve/main/config.json")
		is(t, response, 200, commit, `ETag: "`+helloBlob+`"`, "Content-Length: 5")
		if method == "GET" && body != "hello" {
			t.Errorf("got %q", body)
		}
		response, _ = ask(t, server, method, "/org/open/resolve/"+repository.commit+"/q4/m.gguf")
		is(t, response, 302, commit, `X-Linked-Etag: "`+sha256+`"`, "X-Linked-Size: 45", "Location: /storage/org/open/"+sha256)
	}
	response, body := ask(t, server, "GET", "/storage/org/open/"+sha256)
	is(t, response, 200, `ETag: "`+sha256+`"`, "Accept-Ranges: bytes")
	if body != weights {
		t.Errorf("got %q", body)
	}
	response, body = ask(t, server, "GET", "/storage/org/open/"+sha256, "Range: bytes=6-")
	is(t, response, 206, "Content-Range: bytes 6-44/45", "Content-Length: 39")
	if body != weights[6:] {
		t.Errorf("got %q", body)
	}
	response, _ = ask(t, server, "GET", "/storage/org/open/"+sha256, "Range: bytes=45-")
	is(t, response, 416)
}

func TestGatedRepositoryNeedsItsToken(t *testing.T) {
	server, _ := serve(t, Options{Gated: []string{"org/closed"}, Token: "right"})
	for _, path := range []string{"/api/models/org/closed/revision/main", "/org/closed/resolve/main/m.gguf"} {
		response, _ := ask(t, server, "GET", path)
		is(t, response, 401, "X-Error-Code: GatedRepo")
		response, _ = ask(t, server, "GET", path, "Authorization: Bearer wrong")
		is(t, response, 401, "X-Error-Code: GatedRepo")
		response, _ = ask(t, server, "GET", path, "Authorization: Bearer right")
		if response.StatusCode != 200 && response.StatusCode != 302 {
			t.Errorf("got %s", response.Status)
		}
	}
	response, _ := ask(t, server, "GET", "/api/models/org/open")
	is(t, response, 200)
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	server, _ := serve(t, Options{})
	for path, code := range map[string]string{
		"/api/models/org/none/revision/main":          "RepoNotFound",
		"/api/models/org/open/revision/refs%2Fpr%2F1": "RevisionNotFound",
		"/org/open/resolve/main/none":                 "EntryNotFound",
		"/org/open/resolve/main/../closed/m.gguf":     "EntryNotFound",
		"/storage/org/open/00":                        "",
		"/":                                           "",
	} {
		response, _ := ask(t, server, "GET", path)
		is(t, response, 404, "X-Error-Code: "+code)
	}
	response, _ := ask(t, server, "DELETE", "/org/open/resolve/main/config.json")
	is(t, response, 405)
}

func TestRequestsAndBytesAreCounted(t *testing.T) {
	server, hub := serve(t, Options{})
	storage := "/storage/org/open/" + hub.repositories["org/open"].files["q4/m.gguf"].sha256
	ask(t, server, "GET", storage)
	ask(t, server, "GET", storage, "Range: bytes=40-")
	ask(t, server, "HEAD", storage)
	ask(t, server, "GET", "/org/none/resolve/main/x?query=1")
	ask(t, server, "GET", "/counts")
	_, body := ask(t, server, "GET", "/counts")
	var counts map[string]Count
	if err := json.Unmarshal([]byte(body), &counts); err != nil {
		t.Fatal(err)
	}
	if counts[storage] != (Count{Gets: 2, Heads: 1, Bytes: 50}) || counts["/org/none/resolve/main/x"] != (Count{Gets: 1}) ||
		len(counts) != 2 {
		t.Errorf("got %s", body)
	}
}

func TestSlowRepositoryIsSlowAndOthersAreNot(t *testing.T) {
	server, hub := serve(t, Options{BytesPerSecond: map[string]int64{"org/closed": 150}})
	sha256 := hub.repositories["org/closed"].files["m.gguf"].sha256
	begun := time.Now()
	_, body := ask(t, server, "GET", "/storage/org/closed/"+sha256)
	// 45 bytes at 150 a second; never sooner, however long it may take on a busy machine.
	if took := time.Since(begun); body != weights || took < 300*time.Millisecond {
		t.Errorf("got %q after %s", body, took)
	}
	_, body = ask(t, server, "GET", "/storage/org/open/"+sha256)
	if body != weights {
		t.Errorf("got %q", body)
	}
}

func TestWhatCannotBeServedIsAnErrorAtTheStart(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "org", "name"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, options := range []Options{
		{Root: t.TempDir()},
		{Root: root, Gated: []string{"org/other"}, Token: "x"},
		{Root: root, Gated: []string{"org/name"}},
	} {
		if _, err := New(options); err == nil {
			t.Errorf("%+v is taken", options)
		}
	}
}
