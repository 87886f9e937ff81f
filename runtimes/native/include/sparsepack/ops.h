/* sparsepack's sparse operators for ONNX Runtime: one shared library, plain C.
 *
 * Give the library's path to the runtime before opening a model written by `--to onnx-sparse`:
 *   C       RegisterCustomOpsLibrary_V2(options, "libsparsepack_ops.so")
 *   Python  options.register_custom_ops_library(path)
 *   C#      options.RegisterCustomOpLibrary(path)
 * or call RegisterCustomOps yourself with the session options and OrtGetApiBase(). */
#ifndef SPARSEPACK_OPS_H
#define SPARSEPACK_OPS_H

#if defined(_WIN32)
#define SPARSEPACK_EXPORT __declspec(dllexport)
#else
#define SPARSEPACK_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct OrtStatus;
struct OrtSessionOptions;
struct OrtApiBase;

/* Null for success, else a status that the caller releases. */
SPARSEPACK_EXPORT struct OrtStatus* RegisterCustomOps(struct OrtSessionOptions* options, const struct OrtApiBase* api);

/* "avx512", "avx2", "neon" or "generic": what the kernels run with on this processor. */
SPARSEPACK_EXPORT const char* sparsepack_instruction_set(void);

#ifdef __cplusplus
}
#endif
#endif
