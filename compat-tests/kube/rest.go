package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Object is any object of the API as its JSON is.
type Object = map[string]any

// Meta is what the tests look at in an object's or a list's metadata.
type Meta struct {
	Name               string            `json:"name"`
	UID                string            `json:"uid"`
	Namespace          string            `json:"namespace"`
	ResourceVersion    string            `json:"resourceVersion"`
	DeletionTimestamp  string            `json:"deletionTimestamp"`
	Finalizers         []string          `json:"finalizers"`
	OwnerReferences    []any             `json:"ownerReferences"`
	Annotations        map[string]string `json:"annotations"`
	Continue           string            `json:"continue"`
	RemainingItemCount *int64            `json:"remainingItemCount"`
}

// Item is an object of a list or a watch, with what the tests put into it: the data of a ConfigMap, the
// message of an Event; Spec and Status are as they come. In an ERROR event it is a status.
type Item struct {
	Metadata Meta              `json:"metadata"`
	Spec     any               `json:"spec"`
	Status   any               `json:"status"`
	Data     map[string]string `json:"data"`
	Message  string            `json:"message"`
	Reason   string            `json:"reason"`
	Code     int               `json:"code"`
}

// List is an answer to a list.
type List struct {
	Metadata Meta   `json:"metadata"`
	Items    []Item `json:"items"`
}

// Status is a refusal.
type Status struct {
	Metadata Meta   `json:"metadata"`
	Message  string `json:"message"`
	Reason   string `json:"reason"`
	Code     int    `json:"code"`
}

// Answer is what the apiserver said to one request.
type Answer struct {
	Code int
	Body []byte
}

// into reads the answer's JSON.
func into[T any](a Answer) (value T, err error) {
	err = json.Unmarshal(a.Body, &value)
	return value, err
}

// patchType is the content type of a patch, given along with its text.
type patchType string

const (
	mergePatch     patchType = "application/merge-patch+json"
	jsonPatch      patchType = "application/json-patch+json"
	strategicPatch patchType = "application/strategic-merge-patch+json"
	applyPatch     patchType = "application/apply-patch+yaml"
)

// patch is a body that is no whole object.
type patch struct {
	kind patchType
	text string
}

// Ask sends one request and reads its whole answer. The body is nil, a patch, or an object that
// becomes JSON.
func (a *Apiserver) Ask(ctx context.Context, method, path string, body any) (Answer, error) {
	response, err := a.open(ctx, method, path, body)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return Answer{Code: response.StatusCode, Body: content}, err
}

func (a *Apiserver) open(ctx context.Context, method, path string, body any) (*http.Response, error) {
	kind, content := "application/json", []byte(nil)
	switch b := body.(type) {
	case nil:
	case patch:
		kind, content = string(b.kind), []byte(b.text)
	default:
		content = need(json.Marshal(b))
	}
	request, err := http.NewRequestWithContext(ctx, method, "https://"+a.Address+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", kind)
	}
	return a.client.Do(request)
}

// Event is one event of a watch.
type Event struct {
	Type   string `json:"type"`
	Object Item   `json:"object"`
}

// Watch is an open watch; its channel is closed when the apiserver ends it or the connection breaks.
type Watch struct {
	Events <-chan Event
	stop   context.CancelFunc
}

// Stop ends the watch.
func (w *Watch) Stop() { w.stop() }

// OpenWatch starts a watch; the query stands in the path.
func (a *Apiserver) OpenWatch(ctx context.Context, path string) (*Watch, error) {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	ctx, stop := context.WithCancel(ctx)
	response, err := a.open(ctx, http.MethodGet, path+separator+"watch=1", nil)
	if err != nil {
		stop()
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		content, _ := io.ReadAll(response.Body)
		response.Body.Close()
		stop()
		return nil, fmt.Errorf("watch: %d %s", response.StatusCode, content)
	}
	events := make(chan Event, 64)
	go func() {
		defer close(events)
		defer response.Body.Close()
		for decoder := json.NewDecoder(response.Body); ; {
			var event Event
			if decoder.Decode(&event) != nil {
				return
			}
			select {
			case events <- event:
			case <-ctx.Done():
				return
			}
		}
	}()
	return &Watch{Events: events, stop: stop}, nil
}

// at is a field of an object by the names on the way to it; nil when one of them is not there.
func at(object any, path ...string) any {
	for _, name := range path {
		fields, _ := object.(map[string]any)
		object = fields[name]
	}
	return object
}

// textAt is a field that is a text.
func textAt(object any, path ...string) string {
	text, _ := at(object, path...).(string)
	return text
}

func asJSON(value any) []byte { return need(json.Marshal(value)) }
