// Command strategic-merge-oracle tells what Kubernetes' own strategic merge
// makes of a patch: the judge of src/kube/strategic-merge.ts.
//
// One JSON line in, one out, in order:
//
//	{"op":"merge","kind":"Pod","original":{…},"patch":{…},"runs":8} -> {"outcomes":[{"result":{…}}, {"error":"…"}]}
//	{"op":"diff","kind":"Node","original":{…},"modified":{…}} -> {"patch":{…}} or {"error":"…"}
//	{"op":"keys","kind":"Pod"} -> {"keys":{…}}, as merge-keys.ts writes them
//
// A merge is run as often as asked, for Go walks its maps in random order: more
// than one outcome means that Kubernetes itself is not decided. The patch's
// fields are shuffled each time, as a small map is walked from a random place on
// but otherwise in the order in which it was filled. A panic is
// an error, as it is in the API server. Directives that the merge leaves in its
// result are taken out, as the API server does by decoding it into the type.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
)

type request struct {
	Op       string          `json:"op"`
	Runs     int             `json:"runs"`
	Kind     string          `json:"kind"`
	Original json.RawMessage `json:"original"`
	Patch    json.RawMessage `json:"patch"`
	Modified json.RawMessage `json:"modified"`
}

type outcome struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

type answer struct {
	Outcomes []outcome       `json:"outcomes,omitempty"`
	Patch    json.RawMessage `json:"patch,omitempty"`
	Keys     fieldRules      `json:"keys,omitempty"`
	Error    string          `json:"error,omitempty"`
}

type fieldRules map[string]fieldRule

type fieldRule struct {
	MergeKey *string    `json:"mergeKey,omitempty"`
	Fields   fieldRules `json:"fields,omitempty"`
}

var kinds = map[string]any{"Pod": corev1.Pod{}, "Node": corev1.Node{}}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(text, &asked); err != nil {
			fmt.Fprintf(os.Stderr, "cannot read a request: %v\n", err)
			os.Exit(1)
		}
		if err := out.Encode(answerTo(asked)); err != nil {
			os.Exit(1)
		}
	}
}

func answerTo(asked request) answer {
	switch asked.Op {
	case "keys":
		return answer{Keys: rulesOf(reflect.TypeOf(kinds[asked.Kind]))}
	case "diff":
		patch, err := guarded(func() ([]byte, error) {
			return strategicpatch.CreateTwoWayMergePatch(asked.Original, asked.Modified, kinds[asked.Kind])
		})
		if err != nil {
			return answer{Error: err.Error()}
		}
		return answer{Patch: patch}
	default:
		return answer{Outcomes: distinctOutcomes(asked)}
	}
}

// distinctOutcomes counts all errors as one: which comes first is as random.
func distinctOutcomes(asked request) []outcome {
	var distinct []outcome
	seen := map[string]bool{}
	for range asked.Runs {
		next := mergeOnce(asked)
		if key := string(next.Result); !seen[key] {
			seen[key] = true
			distinct = append(distinct, next)
		}
	}
	return distinct
}

// rulesOf reads the tags of the fields, as far down as a patch is merged.
func rulesOf(structType reflect.Type) fieldRules {
	rules := fieldRules{}
	for index := range structType.NumField() {
		field := structType.Field(index)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		fieldType := field.Type
		if fieldType.Kind() == reflect.Pointer {
			fieldType = fieldType.Elem()
		}
		if field.Anonymous && name == "" && fieldType.Kind() == reflect.Struct {
			maps.Copy(rules, rulesOf(fieldType))
			continue
		}
		rule := fieldRule{}
		if strings.Contains(field.Tag.Get("patchStrategy"), "merge") {
			mergeKey := field.Tag.Get("patchMergeKey")
			rule.MergeKey = &mergeKey
			fieldType = fieldType.Elem()
		}
		if fieldType.Kind() == reflect.Struct {
			rule.Fields = rulesOf(fieldType)
		}
		if rule.MergeKey != nil || len(rule.Fields) > 0 {
			rules[name] = rule
		}
	}
	return rules
}

func mergeOnce(asked request) outcome {
	result, err := guarded(func() ([]byte, error) {
		patch, err := shuffled(asked.Patch)
		if err != nil {
			return nil, err
		}
		merged, err := strategicpatch.StrategicMergePatch(asked.Original, patch, kinds[asked.Kind])
		if err != nil {
			return nil, err
		}
		var value any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(merged, &value); err != nil {
			return nil, err
		}
		return json.Marshal(withoutDirectives(value))
	})
	if err != nil {
		return outcome{Error: err.Error()}
	}
	return outcome{Result: result}
}

// shuffled is the same JSON with the fields of each map in random order.
func shuffled(text json.RawMessage) (json.RawMessage, error) {
	if len(text) == 0 || (text[0] != '{' && text[0] != '[') {
		return text, nil
	}
	var parts []string
	add := func(prefix string, value json.RawMessage) error {
		inner, err := shuffled(value)
		parts = append(parts, prefix+string(inner))
		return err
	}
	if text[0] == '[' {
		var items []json.RawMessage
		if err := json.Unmarshal(text, &items); err != nil {
			return nil, err
		}
		for _, item := range items {
			if err := add("", item); err != nil {
				return nil, err
			}
		}
		return json.RawMessage("[" + strings.Join(parts, ",") + "]"), nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	for key, value := range fields {
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		if err := add(string(name)+":", value); err != nil {
			return nil, err
		}
	}
	rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return json.RawMessage("{" + strings.Join(parts, ",") + "}"), nil
}

// guarded turns a panic into an error.
func guarded(action func() ([]byte, error)) (result []byte, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v", reason)
		}
	}()
	return action()
}

func withoutDirectives(value any) any {
	switch typed := value.(type) {
	case map[string]any:
		for key, field := range typed {
			if isDirective(key) {
				delete(typed, key)
			} else {
				typed[key] = withoutDirectives(field)
			}
		}
	case []any:
		for index, item := range typed {
			typed[index] = withoutDirectives(item)
		}
	}
	return value
}

func isDirective(key string) bool {
	return key == "$patch" || key == "$retainKeys" ||
		strings.HasPrefix(key, "$setElementOrder") || strings.HasPrefix(key, "$deleteFromPrimitiveList")
}
