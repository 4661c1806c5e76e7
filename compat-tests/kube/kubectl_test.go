package kube

import (
	"fmt"
	"strings"
	"testing"
)

// A ConfigMap as a user would write it.
func manifest(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  color: %s\n", name, value)
}

func TestKubectlCreatesGetsPatchesScalesAndDeletes(t *testing.T) {
	Plain.On(t, func(c *Case) {
		c.Does("deployment.apps/web created", "", "create", "deployment", "web", "--image=example.com/web:1", "--replicas=2")
		c.Fails(`deployments.apps "web" already exists`, "", "create", "deployment", "web", "--image=example.com/web:1")
		c.Does("2 example.com/web:1", "", "get", "deployment", "web", "-o",
			"jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image}")
		c.Does("deployment.apps/web patched", "", "patch", "deployment", "web", "--type=strategic", "-p",
			`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"example.com/web:2"}]}}}}`)
		c.Does("deployment.apps/web patched", "", "patch", "deployment", "web", "--type=merge", "-p",
			`{"metadata":{"labels":{"tier":"front"}}}`)
		c.Does("deployment.apps/web patched", "", "patch", "deployment", "web", "--type=json", "-p",
			`[{"op":"test","path":"/spec/replicas","value":2},{"op":"add","path":"/spec/paused","value":true}]`)
		c.Fails("", "", "patch", "deployment", "web", "--type=json", "-p", `[{"op":"test","path":"/spec/replicas","value":9}]`)
		c.Does("deployment.apps/web scaled", "", "scale", "deployment", "web", "--replicas=5")
		c.Fails("", "", "scale", "deployment", "web", "--current-replicas=3", "--replicas=7")
		c.Does("5 front example.com/web:2", "", "get", "deployment", "web", "-o",
			"jsonpath={.spec.replicas} {.metadata.labels.tier} {.spec.template.spec.containers[0].image}")
		c.Does("deployment.apps/web", "", "get", "deployments", "-l", "tier=front", "-o", "name")
		c.Does(`deployment.apps "web" deleted from `+c.Namespace+` namespace`, "", "delete", "deployment", "web")
		c.Fails(`deployments.apps "web" not found`, "", "get", "deployment", "web")
	})
}

func TestKubectlAppliesDiffsAndReplaces(t *testing.T) {
	Plain.On(t, func(c *Case) {
		c.Does("configmap/paint created", manifest("paint", "red"), "apply", "-f", "-")
		c.Does("configmap/paint unchanged", manifest("paint", "red"), "apply", "-f", "-")
		c.Does("", manifest("paint", "red"), "diff", "-f", "-")
		said := c.kubectl(manifest("paint", "blue"), "diff", "-f", "-")
		var changed []string
		for line := range strings.Lines(said.Out) {
			if (line[0] == '-' || line[0] == '+') && strings.Contains(line, "color") {
				changed = append(changed, strings.TrimSpace(line))
			}
		}
		c.Notef("diff: %d %q", said.Code, changed)
		if said.Code != 1 || !strings.Contains(said.Out, "+  color: blue") {
			c.Errorf("diff: exit %d\n%s%s", said.Code, said.Out, said.Err)
		}
		c.Does("configmap/paint configured", manifest("paint", "blue"), "apply", "-f", "-")
		c.Does("blue", "", "get", "configmap", "paint", "-o", "jsonpath={.data.color}")
		c.Does("configmap/paint replaced", manifest("paint", "green"), "replace", "-f", "-")
		c.Does("configmap/paint labeled", "", "label", "configmap", "paint", "wet=yes")
		c.Does("configmap/paint condition met", "", "wait", "configmap/paint", "--for=jsonpath={.data.color}=green", "--timeout=30s")
		c.Does(`configmap "paint" deleted from `+c.Namespace+` namespace`, manifest("paint", "green"), "delete", "-f", "-")
	})
}

func TestServerSideApplyRefusesConflictsUnlessForced(t *testing.T) {
	Plain.On(t, func(c *Case) {
		apply := func(manager, color string, more ...string) []string {
			return append([]string{"apply", "--server-side", "--field-manager=" + manager, "-f", "-"}, more...)
		}
		c.Does("configmap/paint serverside-applied", manifest("paint", "red"), apply("alice", "red")...)
		c.Does("configmap/paint serverside-applied", manifest("paint", "red"), apply("bob", "red")...)
		c.Fails(`conflict with "bob"`, manifest("paint", "blue"), apply("alice", "blue")...)
		c.Does("red", "", "get", "configmap", "paint", "-o", "jsonpath={.data.color}")
		c.Does("configmap/paint serverside-applied", manifest("paint", "blue"), apply("alice", "blue", "--force-conflicts")...)
		c.Fails(`conflict with "alice"`, manifest("paint", "red"), apply("bob", "red")...)
		c.Does("blue", "", "get", "configmap", "paint", "-o", "jsonpath={.data.color}")
		c.Does("alice", "", "get", "configmap", "paint", "--show-managed-fields", "-o",
			"jsonpath={.metadata.managedFields[?(@.operation==\"Apply\")].manager}")
	})
}
