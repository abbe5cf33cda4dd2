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
        : { readonly [K in keyof T as K extends `_${infer Name}` ? Name : K]: Wire<T[K]> };

/** Fields of a part that the whole does not have; never when it has them all. */
export type Unknown<Part, Whole> = Part extends readonly (infer P)[]
  ? Whole extends readonly (infer W)[]
    ? Unknown<P, W>
    : never
  : Part extends object
    ? {
        [K in keyof Part as string extends K ? never : K]-?: K extends keyof Whole
          ? Unknown<NonNullable<Part[K]>, NonNullable<Whole[K]>>
          : K;
      } extends infer Found
      ? Found[keyof Found]
      : never
    : never;

/**
 * A schema that reads an object of the API; a field that objects of this kind
 * do not have is an error of the check.
 *
 *   const leaseSchema = reads<V1Lease>()(v.object({ spec: v.object({ renewTime: v.string() }) }));
 *
 * @returns the schema, as it is.
 */
export function reads<T>() {
  return <S extends v.GenericSchema>(
    schema: [Unknown<v.InferOutput<S>, Wire<T>>] extends [never]
      ? S
      : { readonly thereIsNoField: Unknown<v.InferOutput<S>, Wire<T>> },
  ): S => schema as S;
}
