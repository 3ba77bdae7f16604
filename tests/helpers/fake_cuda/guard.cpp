// What a CPU build of PyTorch lacks for tensors of device 'cuda' that have no memory: a device guard, the hooks through
// which ATen asks about CUDA, and a generator. Nothing here computes.
//
// Functions are left without `override`: which of them are virtual differs between PyTorch 2.11 and 2.13.

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/GeneratorImpl.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

const c10::Device GPU(c10::DeviceType::CUDA, 0);

// A generator that remembers its seed, and nothing else: a tensor without memory takes no random numbers.
struct Generator final : c10::GeneratorImpl {
  Generator() : GeneratorImpl(GPU, c10::DispatchKeySet(c10::DispatchKey::CUDA)) {}
  void set_current_seed(uint64_t seed) { seed_ = seed; }
  uint64_t current_seed() const { return seed_; }
  uint64_t seed() { return seed_; }
  void set_offset(uint64_t) {}
  uint64_t get_offset() const { return 0; }
  void set_state(const c10::TensorImpl&) {}
  c10::intrusive_ptr<c10::TensorImpl> get_state() const {
    TORCH_CHECK(false, "a generator of fake CUDA has no state");
  }
  GeneratorImpl* clone_impl() const {
    auto* copy = new Generator();
    copy->seed_ = seed_;
    return copy;
  }

 private:
  uint64_t seed_ = c10::default_rng_seed_val;
};

// One GPU, number 0, with one stream.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const { return GPU.type(); }
  c10::DeviceIndex deviceCount() const noexcept { return 1; }
  c10::Device getDevice() const { return GPU; }
  c10::Device exchangeDevice(c10::Device) const { return GPU; }
  void setDevice(c10::Device) const {}
  void uncheckedSetDevice(c10::Device) const noexcept {}
  c10::Stream stream() const { return c10::Stream(c10::Stream::DEFAULT, GPU); }
  c10::Stream getStream(c10::Device) const { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const { return stream(); }
  bool queryStream(const c10::Stream&) const { return true; }
  void synchronizeStream(const c10::Stream&) const {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const {}
  void block(void*, const c10::Stream&) const {}
  bool queryEvent(void*) const { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept {}
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

}  // namespace

namespace at {

// A GPU with cuDNN, so that convolutions choose it and lay their results out as it does.
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const {}
  bool isBuilt() const { return true; }
  bool isAvailable() const { return true; }
  bool hasCUDA() const { return true; }
  bool hasCUDART() const { return true; }
  long versionCUDART() const { return 13000; }
  int getNumGPUs() const { return 1; }
  bool hasPrimaryContext(DeviceIndex) const { return true; }
  DeviceIndex deviceCount() const { return 1; }
  DeviceIndex current_device() const { return 0; }
  DeviceIndex getCurrentDevice() const { return 0; }
  void setCurrentDevice(DeviceIndex) const {}
  DeviceIndex exchangeDevice(DeviceIndex) const { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const { return 0; }
  bool hasCuDNN() const { return true; }
  bool compiledWithCuDNN() const { return true; }
  long versionCuDNN() const { return 91300; }
  long versionRuntimeCuDNN() const { return 91300; }
  long versionCuDNNFrontend() const { return 11300; }
  bool supportsDilatedConvolutionWithCuDNN() const { return true; }
  bool supportsDepthwiseConvolutionWithCuDNN() const { return true; }
  bool supportsBFloat16ConvolutionWithCuDNNv8() const { return true; }
  double batchnormMinEpsilonCuDNN() const { return 1e-5; }
  at::Generator getNewGenerator(DeviceIndex) const { return make_generator<::Generator>(); }
  const at::Generator& getDefaultGenerator(DeviceIndex) const {
    static const at::Generator generator = make_generator<::Generator>();
    return generator;
  }
};

REGISTER_CUDA_HOOKS(CUDAHooks)

}  // namespace at
