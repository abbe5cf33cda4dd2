/**
 * Kubernetes' objects as they go over the wire, from the types of
 * @kubernetes/client-node: a field that is spelt wrong does not pass the check.
 *
 * The package's models are what its classes make of an answer: times are Dates,
 * and fields whose names are words of the language have an underscore. On the
 * wire they are texts and have none. Types alone: nothing of it is there at run
 * time.
 */

import type * as v from "valibot";

/** An object of the API as JSON: times as texts, fields by their own names, nothing to be written to. */
export type Wire<T> = 0 extends 1 & T
  ? unknown
  : T extends Date
    ? string
    : T extends string | number | boolean | null | undefined
      ? T
      : T extends readonly (infer E)[]
        ? readonly Wire<E>[]
        : { readonly [K in keyof T as K extends `_${infer Name}` ? Name : K]: Wire<T[K]> | Absent<T, K> };

/** What stands for a field that need not be there. */
type Absent<T, K extends keyof T> = object extends Pick<T, K> ? null | undefined : never;

/** Fields of a part that the whole does not have; never when it has them all. */
export type Unknown<Part, Whole> = Part extends readonly (infer P)[]
  ? Whole extends readonly (infer W)[]
    ? Unknown<P, W>
    : never
  : Part extends object
    ? {
        [K in keyof Part as string extends K ? never : K extends `$${string}` ? never : K]-?: K extends keyof Whole
          ? Unknown<NonNullable<Part[K]>, NonNullable<Whole[K]>>
          : K;
      } extends infer Found
      ? Found[keyof Found]
      : never
    : never;

/** Nothing to add to a type whose fields the whole all has; else the name of one that it has not. */
type Known<Part, Whole> = [Unknown<Part, Whole>] extends [never]
  ? unknown
  : { readonly thereIsNoField: Unknown<Part, Whole> };

/** Part of an object as a patch has it: null takes a field away, `$patch` an element. */
export type Patch<T> = 0 extends 1 & T
  ? unknown
  : T extends string | number | boolean | null | undefined | Date
    ? Wire<T> | null
    : T extends readonly (infer E)[]
      ? readonly Patch<E>[]
      : { readonly [K in keyof T as K extends `_${infer Name}` ? Name : K]?: Patch<T[K]> | null } & {
          readonly $patch?: "delete";
        };

/**
 * An object of the API as it is sent; a field that objects of this kind do not
 * have is an error of the check, also one that is spread in.
 *
 *   const lease = sent<V1Lease>()({ metadata: { name }, spec: { holderIdentity } });
 */
export function sent<T>() {
  return <const O extends Wire<T>>(object: O & Known<O, Wire<T>>): O => object;
}

/** The same for a patch. */
export function patched<T>() {
  return <const O extends Patch<T>>(patch: O & Known<O, Wire<T>>): O => patch;
}

/**
 * A schema that reads an object of the API, checked in the same way.
 *
 *   const leaseSchema = reads<V1Lease>()(v.object({ spec: v.object({ renewTime: v.string() }) }));
 */
export function reads<T>() {
  return <S extends v.GenericSchema>(schema: S & Known<v.InferOutput<S>, Wire<T>>): S => schema;
}
