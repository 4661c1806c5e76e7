package kube

import (
	"net/http"
	"strings"
	"testing"
)

func TestObjectsAreTakenUpToTheStoresLimitAndNotAbove(t *testing.T) {
	Plain.On(t, func(c *Case) {
		c.Define("crates", "Crate")
		crates := func(names ...string) string { return c.Path("example.com/v1", "crates", names...) }
		crate := func(name string, bytes int) Object {
			return custom("Crate", name, Object{"load": strings.Repeat("x", bytes)})
		}
		c.Must(http.StatusCreated, http.MethodPost, c.ConfigMaps(), configMap("big", strings.Repeat("x", 1_000_000)))
		c.Must(http.StatusCreated, http.MethodPost, crates(), crate("fits", 1_500_000))
		if got := len(textAt(c.Get(crates("fits")), "spec", "load")); got != 1_500_000 {
			c.Errorf("%d bytes came back", got)
		}
		// More than --max-request-bytes of the store; more than the apiserver's client sends at all; more
		// than the apiserver takes.
		c.Refused(http.StatusInternalServerError, "", http.MethodPost, crates(), crate("large", 1_600_000))
		c.Refused(http.StatusInternalServerError, "", http.MethodPost, crates(), crate("larger", 2_200_000))
		c.Refused(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", http.MethodPost, crates(), crate("largest", 3_300_000))
		c.Refused(http.StatusInternalServerError, "", http.MethodPatch, crates("fits"),
			patch{mergePatch, `{"spec":{"more":"` + strings.Repeat("y", 100_000) + `"}}`})
		for _, name := range []string{"large", "larger", "largest"} {
			c.Refused(http.StatusNotFound, "NotFound", http.MethodGet, crates(name), nil)
		}
		c.Must(http.StatusOK, http.MethodPatch, crates("fits"), patch{mergePatch, `{"spec":{"load":"small"}}`})
		c.Must(http.StatusOK, http.MethodDelete, crates("fits"), nil)
	})
}
