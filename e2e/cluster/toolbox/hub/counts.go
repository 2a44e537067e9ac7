package hub

import (
	"net/http"
	"sync"
	"sync/atomic"
)

// counts is what was asked for, by path.
type counts struct {
	mutex  sync.Mutex
	byPath map[string]*count
}

// count is how often a path was asked for, and how many bytes of files were sent for it.
type count struct {
	gets, heads, bytes atomic.Int64
}

// Count is a count as /counts shows it.
type Count struct {
	Gets  int64 `json:"gets"`
	Heads int64 `json:"heads"`
	Bytes int64 `json:"bytes"`
}

// add counts a request, whatever becomes of it.
func (c *counts) add(request *http.Request) *count {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.byPath == nil {
		c.byPath = map[string]*count{}
	}
	found := c.byPath[request.URL.Path]
	if found == nil {
		found = &count{}
		c.byPath[request.URL.Path] = found
	}
	switch request.Method {
	case http.MethodGet:
		found.gets.Add(1)
	case http.MethodHead:
		found.heads.Add(1)
	}
	return found
}

func (c *counts) all() map[string]Count {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	all := map[string]Count{}
	for path, found := range c.byPath {
		all[path] = Count{Gets: found.gets.Load(), Heads: found.heads.Load(), Bytes: found.bytes.Load()}
	}
	return all
}
