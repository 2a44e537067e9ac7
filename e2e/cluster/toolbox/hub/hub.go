// Package hub serves a directory as the Hugging Face hub serves its repositories: what a revision holds, what a
// file is, a file's content, large files by way of a redirect. It counts what it is asked for, and is slow or
// wants a token where it is told to.
//
//	GET /api/models/ORG/NAME[/revision/REVISION]     commit and files, with sizes and checksums
//	GET /api/models/ORG/NAME/tree/REVISION           the files alone
//	GET /ORG/NAME/resolve/REVISION/PATH              a file, or for a large one a redirect to where it is
//	GET /storage/ORG/NAME/SHA256                     a large file
//	GET /counts                                      what it was asked for; is not counted itself
package hub

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Options say what is served, and how.
type Options struct {
	// Root holds the repositories, each in a folder ORG/NAME. It is read once.
	Root string
	// Gated repositories, as ORG/NAME, are opened by Token only.
	Gated []string
	Token string
	// BytesPerSecond is the most that an answer with a file's content sends, by repository. That of "" is for all
	// that are not named; without one there is no limit.
	BytesPerSecond map[string]int64
}

// Hub answers requests.
type Hub struct {
	options      Options
	repositories map[string]*repository
	counts       counts
}

// New reads all repositories.
func New(options Options) (*Hub, error) {
	repositories, err := readAll(options.Root)
	if err != nil {
		return nil, err
	}
	for _, name := range options.Gated {
		if repositories[name] == nil {
			return nil, fmt.Errorf("there is no repository %s in %s to be gated", name, options.Root)
		}
	}
	if len(options.Gated) > 0 && options.Token == "" {
		return nil, fmt.Errorf("without a token nobody can open what is gated")
	}
	return &Hub{options: options, repositories: repositories}, nil
}

func (h *Hub) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/counts" {
		answer(writer, h.counts.all())
		return
	}
	counted := h.counts.add(request)
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		refuse(writer, http.StatusMethodNotAllowed, "", "only what reads is answered")
		return
	}
	// A slash within a revision comes as %2F, so parts are told apart before they are decoded.
	parts := strings.Split(strings.TrimPrefix(request.URL.EscapedPath(), "/"), "/")
	for i, part := range parts {
		decoded, err := url.PathUnescape(part)
		if err != nil {
			refuse(writer, http.StatusBadRequest, "", err.Error())
			return
		}
		parts[i] = decoded
	}
	switch {
	case len(parts) >= 4 && parts[0] == "api" && parts[1] == "models":
		h.api(writer, request, parts[2]+"/"+parts[3], parts[4:])
	case len(parts) == 4 && parts[0] == "storage":
		h.storage(writer, request, counted, parts[1]+"/"+parts[2], parts[3])
	case len(parts) >= 5 && parts[2] == "resolve":
		h.resolve(writer, request, counted, parts[0]+"/"+parts[1], parts[3], strings.Join(parts[4:], "/"))
	default:
		refuse(writer, http.StatusNotFound, "", "there is no such address")
	}
}

// api tells of a revision: all there is to know of it, or its files alone.
func (h *Hub) api(writer http.ResponseWriter, request *http.Request, name string, rest []string) {
	revision, tree := "main", false
	switch {
	case len(rest) == 0:
	case len(rest) == 2 && (rest[0] == "revision" || rest[0] == "tree"):
		revision, tree = rest[1], rest[0] == "tree"
	default:
		refuse(writer, http.StatusNotFound, "", "there is no such address")
		return
	}
	found := h.open(writer, request, name, revision)
	switch {
	case found == nil:
	case tree:
		answer(writer, found.tree())
	default:
		answer(writer, found.info(request.URL.Query().Get("blobs") == "true"))
	}
}

// resolve sends a small file, and to the storage for a large one.
func (h *Hub) resolve(writer http.ResponseWriter, request *http.Request, counted *count, name, revision, path string) {
	repository := h.open(writer, request, name, revision)
	if repository == nil {
		return
	}
	file := repository.files[path]
	if file == nil {
		refuse(writer, http.StatusNotFound, "EntryNotFound", fmt.Sprintf("%s has no file %s", name, path))
		return
	}
	headers := writer.Header()
	headers.Set("X-Repo-Commit", repository.commit)
	if !file.large {
		headers.Set("ETag", quoted(file.blob))
		h.send(writer, request, counted, name, file)
		return
	}
	headers.Set("X-Linked-Etag", quoted(file.sha256))
	headers.Set("X-Linked-Size", strconv.FormatInt(file.size, 10))
	headers.Set("Location", "/storage/"+name+"/"+file.sha256)
	writer.WriteHeader(http.StatusFound)
}

// storage sends a large file to whoever knows its address, as a signed one opens the hub's.
func (h *Hub) storage(writer http.ResponseWriter, request *http.Request, counted *count, name, sha256 string) {
	if repository := h.repositories[name]; repository != nil {
		for _, file := range repository.files {
			if file.large && file.sha256 == sha256 {
				writer.Header().Set("ETag", quoted(file.sha256))
				h.send(writer, request, counted, name, file)
				return
			}
		}
	}
	refuse(writer, http.StatusNotFound, "", "nothing is stored here")
}

// open finds a repository's revision and lets in who may see it. Else it refuses and returns nil.
func (h *Hub) open(writer http.ResponseWriter, request *http.Request, name, revision string) *repository {
	repository := h.repositories[name]
	if repository == nil {
		refuse(writer, http.StatusNotFound, "RepoNotFound", fmt.Sprintf("there is no repository %s", name))
		return nil
	}
	for _, gated := range h.options.Gated {
		if gated == name && request.Header.Get("Authorization") != "Bearer "+h.options.Token {
			refuse(writer, http.StatusUnauthorized, "GatedRepo", fmt.Sprintf("%s is gated", name))
			return nil
		}
	}
	if revision != "main" && revision != repository.commit {
		refuse(writer, http.StatusNotFound, "RevisionNotFound", fmt.Sprintf("%s has no revision %s", name, revision))
		return nil
	}
	return repository
}

// send sends a file, or the part of it that is asked for, no faster than it may.
func (h *Hub) send(writer http.ResponseWriter, request *http.Request, counted *count, name string, file *file) {
	content, err := os.Open(file.place)
	if err != nil {
		refuse(writer, http.StatusInternalServerError, "", err.Error())
		return
	}
	defer content.Close()
	speed, named := h.options.BytesPerSecond[name]
	if !named {
		speed = h.options.BytesPerSecond[""]
	}
	writer.Header().Set("Content-Type", "application/octet-stream")
	to := &sender{ResponseWriter: writer, ctx: request.Context(), speed: speed, begun: time.Now(), sent: &counted.bytes}
	http.ServeContent(to, request, "", time.Time{}, content)
}

func answer(writer http.ResponseWriter, value any) {
	writer.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(writer).Encode(value) // whoever asked is gone
}

// refuse says no in the hub's own way: with a word for programs and a sentence for people.
func refuse(writer http.ResponseWriter, status int, code, message string) {
	if code != "" {
		writer.Header().Set("X-Error-Code", code)
	}
	writer.Header().Set("X-Error-Message", message)
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(status)
	_ = json.NewEncoder(writer).Encode(map[string]string{"error": message})
}

func quoted(text string) string {
	return `"` + text + `"`
}
